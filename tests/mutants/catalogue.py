"""The breakages. Each is what a hurried hand might do to the code, one decision wrong and the rest as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """Replace ``old``, which must occur exactly once in ``file`` of the package, by ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """``proof``: the test that is known to notice it, and is therefore asked first; a file below ``tests/``, or one
    test in it.
    """

    name: str
    proof: str
    changes: tuple[Change, ...]


def mutant(name: str, proof: str, *changes: tuple[str, str, str]) -> Mutant:
    return Mutant(name, proof, tuple(Change(*change) for change in changes))


def of(file: str) -> Callable[[str, str, str, str], Mutant]:
    return lambda name, proof, old, new: mutant(name, proof, (file, old, new))


accounts = of("engine/accounts.py")
attempt = of("engine/attempt.py")
batch = of("engine/batch.py")
birth = of("engine/birth.py")
complaints = of("engine/complaints.py")
connections = of("engine/connections.py")
ground = of("engine/ground.py")
official_account = of("platforms/official_account.py")
refresh = of("engine/refresh.py")
schedule = of("engine/schedule.py")
served = of("engine/served.py")
serving = of("engine/serving.py")


MUTANTS = (
    # -- one at a time, fenced (R1, R2)
    mutant(
        "rows are written without comparing",
        "test_rows.py",
        ("engine/rows.py", "filter(pk=token.pk, revision=token.revision)", "filter(pk=token.pk)"),
    ),
    mutant(
        "no fencing",
        "test_rows.py",
        ("engine/rows.py", "        rows = rows.filter(lease_owner=owner)", "        pass"),
        ("engine/attempt.py", "overtaken = fresh.lease_owner != owner", "overtaken = False"),
    ),
    attempt(
        "a late answer is stored over another's claim",
        "test_flights.py::test_store__of_a_token_of_which_others_know_more_gives_way",
        "overtaken = fresh.lease_owner != owner",
        "overtaken, owner = False, fresh.lease_owner",
    ),
    mutant(
        "the lease is shorter than the deadline",
        "test_conf.py",
        ("conf.py", "return self.request_deadline + self.lease_margin", "return self.request_deadline / 2"),
    ),
    schedule(
        "a live lease is ignored",
        "test_schedule.py::test_decide__somebody_is_at_it",
        "    if lease_is_live(token, now, lease):\n        return Decision(",
        "    if False:\n        return Decision(",
    ),
    schedule(
        "a lease in the far future is believed",
        "test_serving.py::test_get_access_token__a_lease_in_the_far_future_is_not_believed",
        "now < token.lease_until <= now + seconds(2 * lease)",
        "now < token.lease_until",
    ),
    mutant(
        "nothing falls due when a lease ends",
        "test_schedule.py::test_claim__falls_due_again_when_the_lease_ends",
        (
            "engine/schedule.py",
            '"lease_until": now + seconds(lease), "due_at": now + seconds(lease)}',
            '"lease_until": now + seconds(lease)}',
        ),
        (
            "engine/schedule.py",
            '        "lease_until": now + seconds(lease),\n        "due_at": now + seconds(lease),\n',
            '        "lease_until": now + seconds(lease),\n',
        ),
    ),
    attempt(
        "a request held up is sent all the same",
        "test_refresh.py::test_refresh__held_up_after_the_claim_sends_nothing",
        "elif (held_up := self._held_up()) > get_settings().lease_margin:",
        "elif (held_up := 0.0):",
    ),
    ground(
        "a key has several flights at a time",
        "test_ground.py",
        "        if under_way is not None:\n            return under_way\n",
        "",
    ),
    ground(
        "a process has any number of flights",
        "test_ground.py",
        "if sum(other.scheduled is scheduled for other in _flights.values()) >= limit:",
        "if False:",
    ),
    ground(
        "the batch takes the callers' threads",
        "test_ground.py",
        "sum(other.scheduled is scheduled for other in _flights.values())",
        "len(_flights)",
    ),
    # -- leaving unclaimed (R1)
    refresh(
        "classic leaves unclaimed",
        "test_flights.py::test_begin__classic_never_leaves_unclaimed",
        "            and not attempt.displaces()\n",
        "",
    ),
    refresh(
        "a complaint leaves unclaimed",
        "test_flights.py::test_begin__a_complaint_never_leaves_unclaimed",
        "            and self.complaint is None\n",
        "",
    ),
    refresh(
        "what nobody waits for leaves unclaimed",
        "test_flights.py::test_begin__nobody_waits_so_nothing_leaves_unclaimed",
        "            and self.flight.may_hold_lock\n        )",
        "        )",
    ),
    refresh(
        "a queue for the row is taken for a caller's lock",
        "test_flights.py::test_begin__nobody_in_a_transaction_so_nothing_leaves_unclaimed",
        "            and self.flight.may_hold_lock\n",
        "            and bool(self.flight.waiting)\n",
    ),
    refresh(
        "nothing leaves unclaimed",
        "test_flights.py::test_begin__plain_stable_leaves_unclaimed_while_its_caller_holds_the_lock",
        "and self.flight.locked_for >= UNCLAIMED_AFTER",
        "and False",
    ),
    attempt(
        "what left unclaimed is stored over a claim",
        "test_flights.py::test_begin__unclaimed_gives_way_to_who_claimed_meanwhile",
        "overtaken = bool(fresh.lease_owner) or fresh.version != self.token.version",
        "overtaken = False",
    ),
    attempt(
        "a claim whose answer was lost is another's",
        "test_flights.py::test_refresh__goes_on_after_a_write_whose_answer_was_lost",
        'return self._tried[0] == "claim" and rows.has_landed(self.token, self._tried[1])',
        "return False",
    ),
    attempt(
        "a store whose answer was lost is another's",
        "test_flights.py::test_refresh__goes_on_after_a_write_whose_answer_was_lost",
        "if tried and rows.has_landed(self.token, before) and tried == step:",
        "if False:",
    ),
    # -- intent and repair (R2)
    schedule(
        "no intent",
        "test_schedule.py::test_intent__doubts_the_token_if_the_request_displaces_it",
        "if displaces and token.unanswered_since is None:",
        "if False:",
    ),
    schedule(
        "a doubtful token counts as good",
        "test_schedule.py::test_usable_until__examples",
        "    if token.unanswered_since is None:\n        return token.expires_at\n",
        "    if True:\n        return token.expires_at\n",
    ),
    schedule(
        "no repair",
        "test_schedule_answers.py::test_after_failure__a_lost_answer_puts_the_token_in_doubt",
        "if doubtful and hurry and failure.error_class is ErrorClass.TRANSIENT:",
        "if False:",
    ),
    schedule(
        "a crashed holder's request is forgotten",
        "test_schedule.py::test_claim__of_a_crashed_holder_takes_its_request_for_lost",
        'may still be on its way.\n        fields["lost_at"] = token.sent_at',
        "may still be on its way.\n        pass",
    ),
    schedule(
        "a lost request is taken for settled",
        "test_schedule_answers.py::test_after_success__a_lost_request_may_still_arrive",
        "if sent_at < settled_at:",
        "if False:",
    ),
    schedule(
        "a failed repair clears the doubt",
        "test_schedule_answers.py::test_after_failure__an_older_doubt_stays",
        'fields["unanswered_since"] = before.unanswered_since',
        'fields["unanswered_since"] = None',
    ),
    attempt(
        "an overtaken request asks for no repair",
        "test_refresh.py::test_refresh__a_late_answer_never_overwrites_a_newer_token",
        "sent_at, repair = self.token.sent_at, may_have_issued and self.displaces(forced=self.forced)",
        "sent_at, repair = self.token.sent_at, False",
    ),
    # -- the life of a token (R6, R12)
    schedule(
        "the life counts from the answer",
        "test_schedule_answers.py::test_after_success__the_life_counts_from_before_the_request",
        "    sent_at = token.sent_at or now\n    expires_at = sent_at + seconds(issued.expires_in)",
        "    sent_at = token.sent_at or now\n    expires_at = now + seconds(issued.expires_in)",
    ),
    schedule(
        "no jitter",
        "test_schedule_answers.py::test_renewals__are_spread",
        "(renewal.earliest - renewal.latest) * chance",
        "(renewal.earliest - renewal.latest)",
    ),
    official_account(
        "stable is asked before its window",
        "test_official_account.py",
        "window = min(STABLE_WINDOW, life / 3)",
        "window = min(4 * STABLE_WINDOW, life / 3)",
    ),
    schedule(
        "others are told the whole life",
        "test_schedule.py::test_reliable_until__examples",
        "return min(usable_end, planned + seconds(overlap))",
        "return usable_end",
    ),
    schedule(
        "versions start anew after a restore",
        "test_flights.py::test_version__grows_across_a_restored_backup",
        "version = max(token.version + 1, int(sent_at.timestamp() * 1000))",
        "version = token.version + 1",
    ),
    # -- readers (R4, R7, R18)
    mutant(
        "a reader waits for the renewal",
        "test_flights.py::test_begin__a_reader_has_the_token_in_hand_before_wechat_is_asked",
        ("engine/refresh.py", "            self.flight.answer(self.flight.current)\n", "            pass\n"),
        (
            "engine/refresh.py",
            "self.flight.current = Outcome(Status.CURRENT, token, ",
            "_ = Outcome(Status.CURRENT, token, ",
        ),
    ),
    ground(
        "a reader waits for what becomes of a complaint",
        "test_ground.py",
        "if reading and flight.current is not None:\n            return flight.current\n        if threads.wait",
        "if threads.wait",
    ),
    refresh(
        "readers get the token that WeChat has just refused",
        "test_flights.py::test_begin__a_refused_token_is_handed_to_no_reader_while_another_is_fetched",
        "        self.flight.current = None\n",
        "",
    ),
    serving(
        "a reader waits for the renewal it starts",
        "test_flights.py::test_get_access_token__an_overdue_token_is_returned_and_renewed",
        "            begin(entry.key, Reason.CALLER)\n    return served.newer",
        "            ground.wait(begin(entry.key, Reason.CALLER), settings.wait_timeout)\n    return served.newer",
    ),
    serving(
        "callers never renew",
        "test_flights.py::test_get_access_token__an_overdue_token_is_returned_and_renewed",
        "if turn is not None and clock.now() >= turn and not settings.paused:",
        "if False:",
    ),
    serving(
        "memory is never looked up again",
        "test_serving.py::test_memory__another_process_renewed",
        "    if known is not None and now < known.fresh_until:\n        return known\n    if known is None",
        "    if known is not None and now < known.dead_at:\n        return known\n    if known is None",
    ),
    serving(
        "an idle entry is handed out during its look-up",
        "test_serving.py::test_current_entry__no_thread_gets_an_entry_that_lay_idle",
        "return known if now < others_keep_it_until else _look_or_fetch(",
        "return known if now < known.dead_at else _look_or_fetch(",
    ),
    serving(
        "a task waits although it has a token",
        "test_flights.py::test_aget_access_token__a_task_takes_the_token_it_has_while_it_is_looked_up",
        "            if usable is not None and _is_in_constant_use(usable, flight):\n",
        "            if False:\n",
    ),
    served(
        "memory grows without end",
        "test_served.py",
        "if len(young) >= get_settings().memory_entries and entry.key not in young:",
        "if False:",
    ),
    # -- waiting (R30)
    ground(
        "a caller joins the flight without a limit",
        "test_ground.py",
        "return _wait(flight, me, clock.monotonic() + seconds, over_http=over_http, reading=reading)",
        "return _wait(flight, me, clock.monotonic() + 1e9, over_http=over_http, reading=reading)",
    ),
    ground(
        "a caller in a transaction waits for its own lock",
        "test_ground.py",
        "if me.may_hold_lock and flight.locked_for > LOCKED_SECONDS:",
        "if False:",
    ),
    ground(
        "threads pile up behind what hangs",
        "test_ground.py",
        "return me not in flight.waiting[:WAITING]\n",
        "return False\n",
    ),
    ground(
        "http threads wait without limit",
        "test_ground.py",
        " or me not in _over_http[:ALL_WAITING_OVER_HTTP]",
        "",
    ),
    ground(
        "what hangs has all threads for a second again and again",
        "test_ground.py",
        "(FREE_AGAIN if flight.key in _slow else FREE_SECONDS)",
        "FREE_SECONDS",
    ),
    ground(
        "signals are sent before the answer",
        "test_flights.py::test_signals__are_sent_when_the_callers_have_left",
        "self._to_tell.append(work)",
        "work()",
    ),
    refresh(
        "a lock is waited for without end",
        "test_flights.py::test_begin__nobody_waits_so_nothing_leaves_unclaimed",
        "if now - self.began > max(ALONE, get_settings().wait_timeout) and not self.flight.is_awaited:",
        "if False:",
    ),
    # -- connections (R3, R34, R35)
    connections(
        "what hands over the private connection is the site's pool",
        "test_connections.py",
        '            options.pop("pool", None)\n',
        "",
    ),
    connections(
        "the store sits in the caller's transaction",
        "test_connections.py",
        "    using = alias()\n    if in_place():\n        yield using",
        "    using = alias()\n    if True:\n        yield using",
    ),
    connections(
        "the caller's connection is not given back",
        "test_connections.py",
        "            connections[using] = former\n",
        "            pass\n",
    ),
    connections(
        "private connections lie idle",
        "test_connections.py",
        "if sound and len(_waiting) > len(_handed) and slot.connection.connection is not None:",
        "if sound and slot.connection.connection is not None:",
    ),
    connections(
        "a transaction's old world is read",
        "test_connections.py",
        "            if in_transaction:\n                raise NotHere  # SQLite's",
        "            if False:\n                raise NotHere  # SQLite's",
    ),
    refresh(
        "a connection is held while WeChat is asked",
        "test_connections.py",
        "            outcome = self._ask(self.attempt)\n",
        "            with private():\n                outcome = self._ask(self.attempt)\n",
    ),
    refresh(
        "the result is stored once only",
        "test_flights.py::test_store__is_offered_again_and_the_caller_has_it_after_the_first_attempt",
        "                if clock.monotonic() > give_up_at:\n                    return self._not_stored",
        "                if True:\n                    return self._not_stored",
    ),
    mutant(
        "reads go to the replica",
        "test_connections.py",
        ("querysets.py", "return queryset.using(self._db or router.db_for_write(self.model))", "return queryset"),
    ),
    connections(
        "the engine reads from the replica",
        "test_connections.py",
        "return router.db_for_write(Token)",
        "return router.db_for_read(Token)",
    ),
    mutant(
        "a fork keeps its parent's locks",
        "test_process.py",
        ("process.py", 'if hasattr(os, "register_at_fork"):', "if False:"),
    ),
    # -- memory and cache (R13, R32)
    served(
        "an older version overwrites a newer one",
        "test_served.py",
        "if known is not None and known.age > entry.age and now < known.dead_at:",
        "if False:",
    ),
    served(
        "an older version overwrites a newer one in the cache",
        "test_served.py",
        "if there is not None and there.age > news.age:",
        "if False:",
    ),
    served(
        "old news is put into the cache",
        "test_served.py",
        "if late or is_outdated(entry) or _shared_cache",
        "if is_outdated(entry) or _shared_cache",
    ),
    served(
        "what was held up on its way to the cache stays there",
        "test_served.py",
        "if clock.monotonic() - begun > NEWS_SECONDS:",
        "if False:",
    ),
    served(
        "a withdrawn token comes back from the cache",
        "test_served.py",
        "    drop(key, age)\n    if _shared_cache(resting=True) is not None:",
        "    drop(key, age)\n    if False:",
    ),
    served(
        "who withdraws a token takes it back from a cache that failed",
        "test_served.py",
        "return entry.age < _floors.get(entry.key, (0, 0)) or (",
        "return (",
    ),
    served(
        "a cache that failed is never told what it missed",
        "test_served.py",
        "        _owed[key] = news\n",
        "        pass\n",
    ),
    mutant(
        "another account's cache entry is accepted",
        "test_served.py",
        ("engine/served.py", 'Place("cache", f"{namespace}/{kind}/{ref}")', 'Place("cache", namespace)'),
        ("engine/served.py", "return entry if entry.key == key and ", "return entry if "),
    ),
    mutant(
        "the cache entry of another site is read",
        "test_served.py",
        ("engine/served.py", 'f"wechat_token:{namespace}:{quote(', 'f"wechat_token:{quote('),
        ("engine/served.py", 'Place("cache", f"{namespace}/{kind}/{ref}")', 'Place("cache", f"{kind}/{ref}")'),
    ),
    # -- what opens where (S1, S8)
    mutant(
        "one field's ciphertext opens in another",
        "test_misplaced.py",
        ("encryption/cipher.py", 'info=f"wechat_token:{field}".encode()', 'info=b"wechat_token"'),
        ("models.py", 'bound_to=["issued_for", "kind"]', "bound_to=[]"),
        ("models.py", 'bound_to=["ref"]', "bound_to=[]"),
    ),
    mutant(
        "one row's ciphertext opens in another",
        "test_misplaced.py",
        ("encryption/cipher.py", "mark in (_UNBOUND, _mark(place))", "True"),
    ),
    mutant(
        "a renamed account loses its secret",
        "test_misplaced.py",
        ("models.py", "                self.secret = self.secret ", "                pass "),
    ),
    mutant(
        "SECRET_KEY opens what keys of one's own protect",
        "test_encryption_keys.py",
        ("encryption/keys.py", "return not own_keys_set() or get_settings().read_derived_keys", "return True"),
    ),
    mutant(
        "a copy of the database shares the original's cache entries",
        "test_served.py",
        ("engine/site.py", "if not self.is_copy:\n            return self.site_id", "return self.site_id"),
    ),
    served(
        "a fake WeChat's tokens reach the cache",
        "test_served.py",
        "if _isolated or in_test_case() or get_settings().paused:",
        "if in_test_case() or get_settings().paused:",
    ),
    served(
        "the cache is never checked against the database",
        "test_served.py",
        "return -5.0 <= age < get_settings().cache_seconds",
        "return True",
    ),
    schedule(
        "another AppID's token is served",
        "test_refresh.py::test_refresh__answer_for_another_appid_is_not_served",
        "    if token.issued_for != token.account.ref:\n        return None\n",
        "",
    ),
    # -- complaints (R8, R9, R29, R33)
    refresh(
        "a complaint is not compared",
        "test_complaints.py::test_complain__about_an_older_token_is_settled_by_the_row",
        "        if Secret(entry.value) != complaint.stale:\n",
        "        if False:\n",
    ),
    refresh(
        "a complaint is believed without asking WeChat",
        "test_serving.py::test_refresh_access_token__live_token_is_refused_after_one_probe",
        "            verdict = attempt.probe()\n",
        "            verdict = None\n",
    ),
    attempt(
        "an undecided probe counts as refused",
        "test_complaints.py::test_complain__wechat_does_not_tell",
        "return None if verdict is False else (bool(verdict), failure)",
        "return (True, failure) if verdict else None",
    ),
    official_account(
        "an answer that says nothing is a refusal",
        "test_complaints.py::test_complain__wechat_does_not_tell",
        "        return None  # busy",
        "        return False  # busy",
    ),
    refresh(
        "complaints are not rationed",
        "test_complaints.py::test_complain__who_has_complained_falsely_too_often_is_refused_alone",
        "if complaints.complaint_allowance(token, complaint.payer, now) < 1:",
        "if False:",
    ),
    mutant(
        "the allowance is of the account, not of the client",
        "test_complaints.py::test_complain__who_has_complained_falsely_too_often_is_refused_alone",
        ("engine/complaints.py", "charged = _charges(token).get(client)", 'charged = _charges(token).get("")'),
        ("engine/complaints.py", "    charges[client] = [", '    charges[""] = ['),
    ),
    complaints(
        "a false complaint costs nothing",
        "test_complaints.py::test_complain__falsely_is_charged_to_its_client",
        "complaint_allowance(token, client, now) - 1,",
        "complaint_allowance(token, client, now),",
    ),
    refresh(
        "a true complaint is charged",
        "test_complaints.py::test_complain__truly_costs_nothing",
        "        attempt.note_refusal(self.flight)\n",
        "        attempt.note_refusal(self.flight)\n"
        "        charged = complaints.accepted(attempt.token, self.payer, clock.now())\n"
        '        attempt.refusal["complaints"] = charged["complaints"]\n',
    ),
    complaints(
        "a verdict is believed for long",
        "test_complaints.py::test_complain__a_verdict_is_believed_for_two_seconds",
        "VERDICT_SECONDS: Final = 2.0",
        "VERDICT_SECONDS: Final = 4.9",
    ),
    schedule(
        "a refused token is served on",
        "test_schedule.py::test_usable_until__examples",
        " or token.rejected_version == token.version:\n        return None",
        ":\n        return None",
    ),
    attempt(
        "the same token again is not forced",
        "test_serving.py::test_refresh_access_token__dead_stable_token_that_comes_back_is_forced",
        "return self.same and has_rule and self.token.rejected_version == self.token.version",
        "return False",
    ),
    schedule(
        "forced refreshes without a gap",
        "test_schedule.py::test_forced_refresh_allowed_at__examples",
        "return max(now, token.forced_at + seconds(rule.min_gap))",
        "return now",
    ),
    schedule(
        "forced refreshes without a budget",
        "test_schedule.py::test_forced_refresh_allowed_at__examples",
        "if calls_today(token, endpoint, now) >= rule.per_day:",
        "if False:",
    ),
    attempt(
        "forced calls that change nothing are not counted",
        "test_complaints.py::test_complain__a_forced_refresh_that_changes_nothing_is_counted",
        "(schedule.seconds(rule.min_gap if rule is not None else 30.0), has_left=True)",
        "(schedule.seconds(rule.min_gap if rule is not None else 30.0), has_left=False)",
    ),
    # -- needs, blame, waiting (R20, R21, R22)
    refresh(
        "claimed before its needs are in hand",
        "test_tickets.py::test_get_ticket__fetches_token_and_ticket_once_each",
        "            if self._lacks_needs(attempt):\n                self.attempt = attempt\n",
        "            if self._lacks_needs(attempt):\n                attempt.claim(now, probing=True)\n"
        "                self.attempt = attempt\n",
    ),
    official_account(
        "a refusal of the token is laid at the ticket itself",
        "test_tickets.py::test_needs__a_dead_token_is_replaced_and_the_ticket_asked_for_once_more",
        "return TOKEN if errcode in DEAD_TOKEN_CODES else None",
        "return None",
    ),
    refresh(
        "the complaint is about the current token, not about the refused one",
        "test_tickets.py::test_needs__a_token_that_was_replaced_meanwhile_is_not_complained_about",
        "        stale = attempt.material[need]\n",
        "        known = served.recall((self.flight.key[0], need.kind))\n"
        "        stale = attempt.material[need] if known is None else Secret(known.value)\n",
    ),
    refresh(
        "two fetches after a blame",
        "test_tickets.py::test_needs__refused_again_it_stops",
        "if self.repeated or self.unclaimed or not",
        "if self.unclaimed or not",
    ),
    attempt(
        "each child learns for itself that its root is dead",
        "test_tickets.py::test_waiting__a_ticket_that_is_due_is_held_by_its_roots_failure",
        "return None if until is None else Dependents(kinds, now, until, name_of(after))",
        "return None",
    ),
    attempt(
        "a root that is back wakes nobody",
        "test_tickets.py::test_waiting__ends_with_the_roots_success",
        "return Dependents(kinds, now) if schedule.lets_go(self.token, now, self.overlap) else None",
        "return None",
    ),
    attempt(
        "who waits is forgotten when the answer to a store is lost",
        "test_tickets.py::test_waiting__ends_though_the_answer_to_the_roots_store_was_lost",
        "if dependents is not None and dependents.hold_until is None:",
        "if False:",
    ),
    schedule(
        "waiting counts as a failure",
        "test_tickets.py::test_waiting__for_a_root_that_backs_off_is_no_failure",
        'return {"waits_for": root, "due_at": next_try + seconds(WAIT_BEYOND)}',
        'return {"waits_for": root, "due_at": next_try + seconds(WAIT_BEYOND), "failures": token.failures + 1}',
    ),
    refresh(
        "who begins to wait does not look again",
        "test_tickets.py::test_waiting__what_comes_at_that_very_moment_is_seen",
        "return not all(root is not None and schedule.is_usable(root, clock.now(), overlap) for root in roots)",
        "return True",
    ),
    # -- birth (R23)
    birth(
        "born with each answer",
        "test_birth.py",
        "certain_until = sent_at if born_after is None else min(born_after, sent_at) + seconds(told)",
        "certain_until = sent_at + seconds(told)",
    ),
    birth("vouched for beyond the end", "test_birth.py", "    if -CLOSELY < beyond < 0:\n", "    if False:\n"),
    birth("vouched for without end", "test_birth.py", "        step = SLOWLY\n", "        step = 7200.0\n"),
    birth(
        "another account's answers date a ticket",
        "test_birth.py",
        "knows = is_ours and not comes_back",
        "knows = not comes_back",
    ),
    attempt(
        "an unreadable ticket's answers date the next",
        "test_tickets.py::test_birth__a_ticket_that_nobody_can_read_may_be_the_very_one_that_comes",
        "bool(token.version) and not self._unreadable and token.issued_for == self.ref\n        fields",
        "bool(token.version) and token.issued_for == self.ref\n        fields",
    ),
    birth(
        "what may be dead is believed to save calls",
        "test_birth.py",
        "in_doubt = not comes_back and sent_at < ends_at + seconds(CLOSELY_FOR)",
        "in_doubt = False",
    ),
    # -- in use only (R28)
    schedule(
        "a lazy credential never falls asleep",
        "test_tickets.py::test_lazy__asleep_after_a_day_and_woken_by_the_next_request",
        "if lazy and reason is Reason.SCHEDULE and not is_in_use(token, now):",
        "if False:",
    ),
    mutant(
        "it falls asleep although somebody has just asked",
        "test_tickets.py::test_lazy__somebody_who_asks_at_that_very_moment_keeps_it_awake",
        ("engine/rows.py", "revision=token.revision, asked_at=token.asked_at)", "revision=token.revision)"),
    ),
    serving(
        "nobody notes that somebody asks",
        "test_tickets.py::test_lazy__that_somebody_asks_is_noted_by_the_hour",
        "if entry.kind != ACCESS_TOKEN and clock.monotonic() >= noted_until and not get_settings().paused:",
        "if False:",
    ),
    # -- failures, edits, quotas (R10, R16, R31, R36)
    schedule(
        "no guard below WeChat's daily limit",
        "test_schedule.py::test_decide__own_guard_is_below_wechats",
        "calls_today(token, endpoint, now) >= allowed:",
        "False:",
    ),
    refresh(
        "complaints that prove true use up the reserve",
        "test_complaints.py::test_complain__leaves_calls_for_the_schedule",
        "until = attempt.spared_until()",
        "until = None",
    ),
    schedule(
        "no reserve for the schedule",
        "test_complaints.py::test_complain__leaves_calls_for_the_schedule",
        "    if reason.by_hand or reason is Reason.COMPLAINT:\n        allowed -=",
        "    if False:\n        allowed -=",
    ),
    attempt(
        "who meets the reserve holds back the schedule",
        "test_refresh.py::test_refresh__own_guard_stops_before_wechats_limit",
        "if self.reason.by_hand or until is None or (",
        "if until is None or (",
    ),
    schedule(
        "what never left is counted",
        "test_flights.py::test_refresh__counts_what_left",
        "    if not failure.has_left:\n",
        "    if False:\n",
    ),
    schedule(
        "no backoff",
        "test_schedule_answers.py::test_retry_delay__transient_doubles_up_to_five_minutes",
        "BACKOFF_BASE * 2.0 ** min(failures, 16)",
        "BACKOFF_BASE",
    ),
    schedule(
        "what only people can mend is tried at once",
        "test_schedule_answers.py::test_retry_delay__people_take_time",
        "return HUMAN_PROBE * (0.75 + chance / 2)",
        "return 5.0",
    ),
    schedule(
        "a failure leaves no trace",
        "test_schedule_answers.py::test_after_failure__what_never_left_changes_nothing",
        '        "failures": token.failures + 1,\n',
        '        "failures": token.failures,\n',
    ),
    schedule(
        "an edit goes unnoticed",
        "test_refresh.py::test_refresh__of_an_account_edited_meanwhile_is_due_again",
        "return token.edition != token.account.edition",
        "return False",
    ),
    attempt(
        "an edit during a refresh waits for its turn",
        "test_flights.py::test_refresh__of_an_account_edited_meanwhile_is_due_at_once",
        'return fields | {"due_at": now} if schedule.is_outdated(token) and not self._undeclared else fields',
        "return fields",
    ),
    mutant(
        "an edit during a refresh is taken for done",
        "test_refresh.py::test_refresh__of_an_account_edited_meanwhile_is_due_again",
        (
            "engine/schedule.py",
            "        **NO_FAILURE,\n    }\n    if not same:",
            '        **NO_FAILURE,\n        "edition": token.account.edition,\n    }\n    if not same:',
        ),
        (
            "engine/attempt.py",
            "if schedule.is_outdated(token) and not self._undeclared else fields",
            "if False else fields",
        ),
    ),
    schedule(
        "an edited account keeps its streak",
        "test_flights.py::test_refresh__an_edit_begins_a_new_streak",
        'fields |= {**NO_FAILURE, "edition": token.account.edition}',
        'fields |= {"edition": token.account.edition}',
    ),
    mutant(
        "a new name renews",
        "test_flights.py::test_account_saved__a_new_name_is_no_edit",
        (
            "models.py",
            '{"appid", "platform", "secret", "endpoint", "is_active"}',
            '{"appid", "platform", "secret", "endpoint", "is_active", "name"}',
        ),
    ),
    mutant(
        "a new secret is no edit",
        "test_flights.py::test_account_saved__what_wechat_knows_is_an_edit",
        ("models.py", '"platform", "secret", "endpoint"', '"platform", "endpoint"'),
    ),
    official_account(
        "the secret is decrypted after the claim",
        "test_flights.py::test_refresh__secret_unreadable_here_touches_nothing",
        "account.endpoint, Secret(account.secret.reveal())",
        "account.secret",
    ),
    refresh(
        "the request is built after the claim",
        "test_flights.py::test_refresh__secret_unreadable_here_touches_nothing",
        "            attempt.prepare(self.material or Material())\n",
        "",
    ),
    refresh(
        "a host keeps to itself what it cannot",
        "test_flights.py::test_refresh__settings_that_are_wrong_here_touch_nothing",
        "                    hosts.report(exc)\n",
        "                    pass\n",
    ),
    attempt(
        "an unreadable value stops the store",
        "test_flights.py::test_refresh__unreadable_value_is_no_value",
        "self._unreadable = True",
        "self._unreadable = False",
    ),
    served(
        "an unreadable value is an error for readers",
        "test_flights.py::test_get_access_token__unreadable_value_is_fetched_anew",
        "    except EncryptionKeyError:\n        return None\n    return Entry(",
        "    except EncryptionKeyError:\n        raise\n    return Entry(",
    ),
    attempt(
        "what a source raises is not recorded",
        "test_flights.py::test_refresh__whatever_is_raised_after_the_claim_is_a_failure",
        "        except BaseException as exc:\n            return _broken(exc, has_left=True)",
        "        except BaseException:\n            raise",
    ),
    refresh(
        "a paused site asks WeChat",
        "test_flights.py::test_begin__a_site_that_must_not_asks_nobody",
        "    if settings.paused:\n",
        "    if False:\n",
    ),
    refresh(
        "a reading site asks WeChat",
        "test_flights.py::test_begin__a_site_that_must_not_asks_nobody",
        "    if settings.remote_url:\n",
        "    if False:\n",
    ),
    # -- the batch (R17, R35)
    batch(
        "the drain has no deadline",
        "test_drain.py",
        "give_up_at = clock.monotonic() + settings.drain_deadline",
        "give_up_at = clock.monotonic() + 1e9",
    ),
    batch(
        "two drains on one host",
        "test_drain.py",
        "if not first or not hosts.begin_drain():",
        "if not first:",
    ),
    mutant(
        "a drain that died is waited for",
        "test_drain.py",
        ("engine/hosts.py", "Q(drain_until=None) | Q(drain_until__lte=now) | ", "Q(drain_until=None) | "),
    ),
    batch(
        "a lost edit is never found",
        "test_drain.py",
        "if int(now.timestamp() - SWEEP_AT) % SWEEP_EVERY >= 2 * get_settings().beat_interval:",
        "if True:",
    ),
    batch("a kind of another version stops the tick", "test_drain.py", ".due(now).filter(_served())", ".due(now)"),
)
