"""The larger faults, each a Poisson process of its own: outages, kills, clocks that step, people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wechat_token.encryption import StoredSecret
from wechat_token.models import ACCESS_TOKEN, Account, Token
from wechat_token.sandbox import Fault

from .cipher import LOST, SITE
from .network import OUTAGES, Outage
from .tickets import TYPES

if TYPE_CHECKING:
    from .processes import Host
    from .world import World

DAY = 86_400.0


class Calamities:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.rng = world.rng
        self._secrets = 0

    def start(self) -> None:
        """Let every fault the swarm has drawn happen at its rate."""
        site: dict[str, Callable[[], None]] = {
            "outages": self.outage, "database_outages": self.database_outage, "cache_outages": self.cache_outage,
            "cache_flushes": self.world.cache.flush, "cache_poisonings": self.poison_cache,
            "restarts": self.restart, "freezes": self.freeze, "beat_gaps": self.beat_gap,
            "clock_steps": self.clock_step, "read_only_caches": self.read_only_cache, "lost_keys": self.lose_key,
        }  # fmt: skip
        account: dict[str, Callable[[str], None]] = {
            "foreign": self.foreign, "killed_tokens": self.kill_token,
            "false_complaints": self.world.actors.complain_falsely, "edits": self.edit,
            "secret_resets": self.reset_secret, "freezes_of_secret": self.freeze_secret,
            "ip_whitelists": self.whitelist, "quotas": self.quota, "deactivations": self.deactivate,
            "deletions": self.delete, "hand_edits": self.edit_by_hand,
            "locks": self.world.actors.lock, "lost_values": self.lose_value, "restores": self.restore,
            "ended_tickets": self.end_tickets, "hung_accounts": self.hang, "liars": self.world.actors.lie,
        }  # fmt: skip
        for name, strike in site.items():
            self._recur(getattr(self.world.swarm, name), strike)
        for name, hit in account.items():
            rate = getattr(self.world.swarm, name) * len(self.world.appids)
            self._recur(rate, partial(self._anybody, hit))

    def stop(self) -> None:
        """No further fault; what lasts, ends."""
        world = self.world
        for name in world.swarm.enabled:
            setattr(world.swarm, name, 0.0)
        world.network.outage = None
        world.network.hung_until.clear()
        world.fake.clear_faults()
        world.database.down_until = min(world.database.down_until, self.kernel.now)
        for host in world.hosts:
            host.cache_down_until = host.cache_read_only_until = 0.0
            self._find_key(host)
        for beat in world.beats:
            beat.off_until = 0.0
        for appid in world.appids:
            self._relieve(appid)

    def _recur(self, per_day: float, strike: Callable[[], None]) -> None:
        if not per_day:
            return

        def happen() -> None:
            if not self.world.calm:
                strike()
                self.kernel.after(self.rng.expovariate(per_day / DAY), happen)

        self.kernel.after(self.rng.expovariate(per_day / DAY), happen)

    def _anybody(self, hit: Callable[[str], None]) -> None:
        hit(self.rng.choice(self.world.appids))

    def _length(self) -> float:
        """Most troubles are short, some are not."""
        luck = self.rng.random()
        if luck < 0.7:
            return self.rng.uniform(1.0, 90.0)
        return self.rng.uniform(90.0, 900.0) if luck < 0.97 else self.rng.uniform(900.0, 3 * 3600.0)

    # -- machines ----------------------------------------------------------------------------------

    def outage(self) -> None:
        seconds, style = self._length(), self.rng.choice(OUTAGES)
        self.world.network.outage = Outage(self.kernel.now + seconds, style)
        self.world.trouble(None, f"WeChat: {style} for {seconds:.0f} s", lasts=seconds)

    def database_outage(self) -> None:
        database, seconds = self.world.database, self._length()
        if not database.is_down:
            database.down_since = self.kernel.now
        database.down_until = max(database.down_until, self.kernel.now + seconds)
        self.world.trouble(None, f"database down for {seconds:.0f} s", lasts=seconds)

    def cache_outage(self) -> None:
        seconds = self._length()
        everywhere = self.rng.random() < 0.5
        for host in self.world.hosts if everywhere else [self.rng.choice(self.world.hosts)]:
            if self.kernel.now >= host.cache_down_until:
                host.cache_down_since = self.kernel.now
            host.cache_down_until = max(host.cache_down_until, self.kernel.now + seconds)
        self.world.note(None, "fault: cache down for %.0f s", seconds)

    def read_only_cache(self) -> None:
        seconds = self._length()
        for host in self.world.hosts:
            host.cache_read_only_until = max(host.cache_read_only_until, self.kernel.now + seconds)
        self.world.note(None, "fault: the cache takes nothing for %.0f s", seconds)

    def lose_key(self) -> None:
        """A host is started anew with settings that lack the key; later again with the right ones."""
        host, seconds = self.rng.choice(self.world.hosts), self._length()
        if host.has_key:
            host.has_key = False
            self.world.trouble(None, f"{host.name} lacks the encryption key for {seconds:.0f} s", lasts=seconds + 30.0)
            self.world.restart_host(host)
            self.kernel.after(seconds, partial(self._find_key, host))

    def _find_key(self, host: Host) -> None:
        if not host.has_key:
            host.has_key = True
            self.world.restart_host(host)

    def poison_cache(self) -> None:
        """Soon after the other account was read, so that its entry is still trusted, and soon read."""
        world = self.world
        victim, other = self.rng.choice(world.appids), self.rng.choice(world.appids)
        world.actors.read_somewhere(other)
        self.kernel.after(1.0, partial(world.cache.poison, victim, other))
        for _ in range(3):
            self.kernel.after(self.rng.uniform(1.0, 5.0), partial(world.actors.read_somewhere, victim))

    def restart(self) -> None:
        process = self.rng.choice(self.world.workers + self.world.webs)
        if process.alive:
            self.world.note(None, "%s is killed", process.name)
            self.world.kill(process)

    def freeze(self) -> None:
        process = self.rng.choice(self.world.workers + self.world.webs)
        self.world.pause(process, self.rng.choice([5.0, 20.0, 60.0, 600.0]))

    def beat_gap(self) -> None:
        seconds = self.rng.uniform(60.0, 3 * 3600.0)
        for beat in self.world.beats:
            beat.switch_off(seconds)
        self.world.trouble(None, f"no beat for {seconds:.0f} s", lasts=seconds)

    def clock_step(self) -> None:
        self._set_clock(self.rng.uniform(-8.0, 8.0), self.rng.randrange(len(self.world.hosts)))

    def jump(self, seconds: float) -> None:
        """Once a day a host is told a very wrong time, and half an hour later the right one again."""
        number, begins = self.rng.randrange(len(self.world.hosts)), self.rng.uniform(0.2 * DAY, 0.7 * DAY)
        self.kernel.after(begins, partial(self._set_clock, seconds, number))
        self.kernel.after(begins + 1800.0, partial(self._set_clock, 0.0, number))
        if self.kernel.now + 2 * DAY <= self.world.options.days * DAY:
            self.kernel.after(DAY, partial(self.jump, seconds))

    def _set_clock(self, skew: float, number: int) -> None:
        self.world.hosts[number].skew = skew
        self.world.trouble(None, f"the clock of host {number} is wrong by {skew:+.1f} s")
        self.world.skew_changed()
        self.world.beats_reconsider()

    # -- WeChat and other systems ------------------------------------------------------------------

    def foreign(self, appid: str) -> None:
        endpoint = "classic" if self.rng.random() < 0.7 else "stable"
        if endpoint == "stable" and self.rng.random() < 0.5:
            return
        self.world.fake.foreign_refresh(appid, endpoint=endpoint)
        self._struck(appid, f"another system refreshes ({endpoint})")

    def kill_token(self, appid: str) -> None:
        self.world.fake.kill_token(appid, stuck=self.rng.random() < 0.5)
        self._struck(appid, "WeChat ends the tokens")

    def end_tickets(self, appid: str) -> None:
        for kind in TYPES.values():
            self.world.fake.end_ticket(appid, kind)
        self.world.trouble(appid, "WeChat ends the tickets")

    def hang(self, appid: str) -> None:
        seconds = self._length()
        self.world.network.hung_until[appid] = self.kernel.now + seconds
        self.world.trouble(appid, f"WeChat answers nothing for {seconds:.0f} s", lasts=seconds)

    def quota(self, appid: str) -> None:
        """Another system has used up the day's calls."""
        seconds = DAY - self.kernel.now % DAY
        self.world.fake.inject(Fault("error", errcode=45009), times=1, appid=appid, endpoint="classic")
        self._struck(appid, "45009", lasts=seconds)

    def _struck(self, appid: str, what: str, *, lasts: float = 0.0) -> None:
        self.world.truth.look(appid)
        self.world.trouble(appid, what, lasts=lasts)

    # -- people ------------------------------------------------------------------------------------

    def edit(self, appid: str) -> None:
        def rename(account: Account) -> None:
            account.name = "another"
            account.save()

        def enter_again(account: Account) -> None:
            account.secret = account.secret.reveal()
            account.save()

        self._in_admin(appid, self.rng.choice([rename, enter_again]))

    def deactivate(self, appid: str) -> None:
        def switch(account: Account, active: bool) -> None:
            account.is_active = active
            account.save()

        self._in_admin(appid, partial(switch, active=False))
        self.kernel.after(self.rng.uniform(0.1, 7200.0), lambda: self._in_admin(appid, partial(switch, active=True)))

    def delete(self, appid: str) -> None:
        """Delete the account and enter it again, perhaps while a refresh is under way."""
        account = Account.objects.get(appid=appid)
        secret, endpoint = account.secret, account.endpoint

        def again(gone: Account) -> None:
            gone.delete()
            self.world.witness.forget_account(appid)
            self.kernel.sleep(self.rng.uniform(0.1, 60.0))
            Account.objects.create(appid=appid, secret=secret, endpoint=endpoint)
            self.world.witness.born_at[appid] = self.kernel.now

        self._in_admin(appid, again)

    def edit_by_hand(self, appid: str) -> None:
        """SQL at a prompt: a lease of a year, figures that are none, moments yet to come."""
        later = self.world.time() + dt.timedelta(days=365)
        nonsense: list[dict[str, object]] = [
            {"lease_owner": "nobody", "lease_until": later},
            {"usage": self.rng.choice([[], "many", {"day": 7}, {"classic": "x"}])},
            {"complaints": self.rng.choice([[], "many", {"": "x"}, {"": [-5.0, later.timestamp()]}])},
            {"probe_after": later, "forced_at": later},
            {"failures": 30_000, "error_class": "nonsense"},
        ]
        Token.objects.filter(account__appid=appid).update(**self.rng.choice(nonsense))
        self.world.trouble(appid, "nonsense is written into the row")
        self.world.witness.meddled(appid)

    def lose_value(self, appid: str) -> None:
        """The key it was written with is gone for good."""
        Token.objects.filter(account__appid=appid).exclude(version=0).update(value=StoredSecret(f"{LOST}…"))
        self.world.trouble(appid, "nobody can read the stored token")
        self.world.witness.value_lost(appid)

    def restore(self, appid: str) -> None:
        """The row as it is now comes back after an hour or more, whatever has become of it."""
        world, kinds = self.world, [ACCESS_TOKEN, *self.world.tickets.kinds(appid)]
        kind = ACCESS_TOKEN if len(kinds) == 1 else self.rng.choice(kinds)
        before = Token.objects.filter(account__appid=appid, kind=kind).exclude(version=0).values().first()
        if before is not None:
            of_ticket = world.tickets.stored.get((appid, kind), "")
            text = world.witness.stored.get(appid, "") if kind == ACCESS_TOKEN else of_ticket
            self.kernel.after(self.rng.uniform(1.0, 2.0) * 3600.0, partial(self._restore_row, appid, before, text))

    def _restore_row(self, appid: str, before: dict[str, Any], text: str) -> None:
        if not self.world.calm and Token.objects.filter(pk=before["id"], account_id=before["account_id"]).update(
            **{name: value for name, value in before.items() if name not in ("id", "account_id", "value")},
            value=StoredSecret(SITE + text),
        ):
            self.world.trouble(appid, "the row is restored from a backup")
            if before["kind"] == ACCESS_TOKEN:
                self.world.witness.restored(appid, text)
            else:
                self.world.tickets.stored[appid, before["kind"]] = text
                self.world.witness.meddled(appid)
            for _ in range(4):
                self.kernel.after(self.rng.uniform(0.0, 8.0), partial(self.world.actors.read_somewhere, appid))

    def reset_secret(self, appid: str) -> None:
        """At WeChat first; the new one is entered here a while later."""
        self._secrets += 1
        secret = f"reset-{self._secrets}"
        seconds = self.rng.uniform(10.0, 3600.0)
        self.world.fake.reset_secret(appid, secret, kill_tokens=self.rng.random() < 0.3)
        self._struck(appid, "the AppSecret is reset", lasts=seconds)

        def enter(account: Account) -> None:
            account.secret = secret
            account.save()

        self.kernel.after(seconds, lambda: self._in_admin(appid, enter))

    def freeze_secret(self, appid: str) -> None:
        self.world.fake.freeze(appid)
        self._for_a_while(appid, "the AppSecret is frozen")

    def whitelist(self, appid: str) -> None:
        self.world.fake.set_ip_whitelist(appid, ["192.0.2.1"])
        self._for_a_while(appid, "an IP whitelist without us")

    def _for_a_while(self, appid: str, what: str) -> None:
        seconds = self._length()
        self._struck(appid, what, lasts=seconds)
        self.kernel.after(seconds, partial(self._relieve, appid))

    def _relieve(self, appid: str) -> None:
        self.world.fake.freeze(appid, on=False)
        self.world.fake.set_ip_whitelist(appid, None)
        self.world.trouble(appid, "ends")

    def _in_admin(self, appid: str, change: Callable[[Account], None]) -> None:
        """What an operator does, in a web process; the row is written outside the flow of a refresh."""
        world = self.world

        def work() -> None:
            account = Account.objects.filter(appid=appid).first()
            if account is None:
                return
            world.witness.edited_at[appid] = self.kernel.now
            world.trouble(appid, "an operator is at work", lasts=30.0)
            change(account)

        alive = [process for process in world.webs if process.alive and process.has_key]
        if alive:
            world.kernel.spawn(self.rng.choice(alive), partial(self._guarded, work), "admin")

    def _guarded(self, work: Callable[[], None]) -> None:
        from django.db import Error as AnyDatabaseError

        try:
            work()
        except AnyDatabaseError:
            self.world.note(None, "an operator sees an error page")
        finally:
            self.kernel.after(0.0, self.world.witness.reload)
