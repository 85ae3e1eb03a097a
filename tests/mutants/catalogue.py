"""The breakages. Each is what a hurried hand might do to the code, one decision wrong and the rest as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """Replace ``old``, which must occur exactly once in ``file`` of the package, by ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    changes: tuple[Change, ...]


def mutant(name: str, *changes: tuple[str, str, str]) -> Mutant:
    return Mutant(name, tuple(Change(*change) for change in changes))


def schedule(name: str, old: str, new: str) -> Mutant:
    return mutant(name, ("schedule.py", old, new))


def refresh(name: str, old: str, new: str) -> Mutant:
    return mutant(name, ("refresh.py", old, new))


def serving(name: str, old: str, new: str) -> Mutant:
    return mutant(name, ("serving.py", old, new))


MUTANTS = (
    # -- one at a time, fenced (R1, R2)
    mutant(
        "rows are written without comparing",
        ("rows.py", "filter(pk=token.pk, revision=token.revision)", "filter(pk=token.pk)"),
    ),
    mutant(
        "no fencing",
        ("rows.py", "        rows = rows.filter(lease_owner=owner)", "        pass"),
        ("refresh.py", "if fresh is None or fresh.lease_owner != self.owner:", "if fresh is None:"),
    ),
    mutant(
        "the lease is shorter than the deadline",
        ("conf.py", "return self.request_deadline + self.lease_margin", "return self.request_deadline / 2"),
    ),
    schedule(
        "a live lease is ignored",
        "    if lease_is_live(token, now, lease):\n        return Decision(",
        "    if False:\n        return Decision(",
    ),
    schedule(
        "a lease in the far future is believed",
        "now < token.lease_until <= now + seconds(2 * lease)",
        "now < token.lease_until",
    ),
    mutant(
        "nothing falls due when a lease ends",
        (
            "schedule.py",
            '"lease_until": now + seconds(lease), "due_at": now + seconds(lease)}',
            '"lease_until": now + seconds(lease)}',
        ),
        (
            "schedule.py",
            '        "lease_until": now + seconds(lease),\n        "due_at": now + seconds(lease),\n',
            '        "lease_until": now + seconds(lease),\n',
        ),
    ),
    schedule(
        "an edited account keeps its lease", "{**NO_FAILURE, **released(due_at)}", '{**NO_FAILURE, "due_at": due_at}'
    ),
    refresh("a request held up is sent all the same", "if held_up > get_settings().lease_margin:", "if False:"),
    # -- intent and repair (R2)
    schedule("no intent", "if displaces and token.unanswered_since is None:", "if False:"),
    schedule(
        "a doubtful token counts as good",
        "    if token.unanswered_since is None:\n        return token.expires_at\n",
        "    if True:\n        return token.expires_at\n",
    ),
    schedule("no repair", "if doubtful and hurry and failure.error_class is ErrorClass.TRANSIENT:", "if False:"),
    schedule(
        "a crashed holder's request is forgotten",
        'may still be on its way.\n        fields["lost_at"] = token.sent_at',
        "may still be on its way.\n        pass",
    ),
    schedule("a lost request is taken for settled", "if sent_at < settled_at:", "if False:"),
    schedule(
        "a failed repair clears the doubt",
        'fields["unanswered_since"] = before.unanswered_since',
        'fields["unanswered_since"] = None',
    ),
    refresh(
        "an overtaken request asks for no repair",
        "if may_have_issued and self.displaces(forced=self.forced) and sent_at is not None:",
        "if False:",
    ),
    # -- the life of a token (R6, R12)
    schedule(
        "the life counts from the answer",
        "    sent_at = token.sent_at or now\n    expires_at = sent_at + seconds(issued.expires_in)",
        "    sent_at = token.sent_at or now\n    expires_at = now + seconds(issued.expires_in)",
    ),
    schedule("no jitter", "(renewal.earliest - renewal.latest) * chance", "(renewal.earliest - renewal.latest)"),
    mutant(
        "stable is asked before its window",
        (
            "platforms/official_account.py",
            "window = min(STABLE_WINDOW, life / 3)",
            "window = min(4 * STABLE_WINDOW, life / 3)",
        ),
    ),
    schedule(
        "others are told the whole life", "return min(usable_end, planned + seconds(overlap))", "return usable_end"
    ),
    # -- readers (R4, R7, R18)
    serving(
        "a reader waits for the renewal",
        'background.run(("renew", key), partial(refresh, entry.token_id, reason=Reason.CALLER))',
        "refresh(entry.token_id, reason=Reason.CALLER)",
    ),
    serving("callers never renew", "if turn is not None and now >= turn:", "if False:"),
    serving(
        "memory is never looked up again",
        "    if known is not None and now < known.fresh_until:\n        return known\n    if known is None",
        "    if known is not None and now < known.dead_at:\n        return known\n    if known is None",
    ),
    serving(
        "an idle entry is handed out during its look-up",
        "return known if now < others_keep_it_until else _together(",
        "return known if now < known.dead_at else _together(",
    ),
    mutant(
        "another account's cache entry is accepted",
        ("shelf.py", "(entry.appid, entry.kind) != key or ", ""),
    ),
    mutant(
        "the cache is never checked against the database",
        ("shelf.py", "return -5.0 <= age < get_settings().cache_seconds", "return True"),
    ),
    # -- complaints (R8, R9)
    refresh("a complaint is not compared", "elif not _same(token.value, stale):", "elif False:"),
    refresh(
        "a complaint is believed without asking WeChat",
        "    if stale is not None:\n        verdict = run.probe()",
        "    if False:\n        verdict = run.probe()",
    ),
    refresh(
        "complaints are not rationed",
        "if stale is not None and schedule.complaint_allowance(token, now) < 1:",
        "if False:",
    ),
    schedule(
        "a refused token is served on",
        " or token.rejected_version == token.version:\n        return None",
        ":\n        return None",
    ),
    refresh(
        "the same token again is not forced",
        "if same and rule is not None and self.token.rejected_version == self.token.version:",
        "if False:",
    ),
    schedule(
        "forced refreshes without a gap", "return max(now, token.forced_at + seconds(rule.min_gap))", "return now"
    ),
    schedule("forced refreshes without a budget", "if calls_today(token, endpoint, now) >= rule.per_day:", "if False:"),
    # -- failures (R10, R16)
    schedule(
        "no guard below WeChat's daily limit",
        "if calls_today(token, endpoint, now) >= int(daily_limit * GUARD_SHARE):",
        "if False:",
    ),
    schedule("no backoff", "BACKOFF_BASE * 2.0 ** min(failures, 16)", "BACKOFF_BASE"),
    schedule("what only people can mend is tried at once", "return HUMAN_PROBE * (0.75 + chance / 2)", "return 5.0"),
    schedule(
        "a failure leaves no trace",
        '        "failures": token.failures + 1,\n',
        '        "failures": token.failures,\n',
    ),
)
