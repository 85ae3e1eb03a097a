"""Where encryption keys come from: a file, the settings, a callable, SECRET_KEY; and keys that are none."""

from __future__ import annotations

import base64
import builtins
import logging
import os
from dataclasses import dataclass

import pytest
from cryptography.fernet import Fernet

from tests.leaks import visible
from wechat_token import checks, conf, process
from wechat_token.encryption import Place, decrypt, encrypt, written_with_first_key
from wechat_token.exceptions import ConfigurationError, EncryptionKeyError

HERE = Place("somewhere", "somebody's")
TEXT = "canary-2f8e61d09b7c"
OLD, NEW, THIRD = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def configure(settings, time):
    def configure(**values):
        settings.WECHAT_TOKEN = values

    return configure


@pytest.fixture
def file(tmp_path, configure):
    """A file of keys that is in use; call it to write it anew, as an agent would. ``time`` passes by a second."""
    path = tmp_path / "keys"

    def write(*lines, content=None):
        new = tmp_path / "new"
        new.write_bytes("\n".join(lines).encode() if content is None else content)
        os.replace(new, path)
        return path

    write(OLD)
    configure(ENCRYPTION_KEYS_FILE=str(path))
    return write


def opens(ciphertext):
    try:
        return decrypt(ciphertext, HERE) == TEXT
    except EncryptionKeyError:
        return False


# -- keys that are none


@pytest.mark.parametrize("length", [0, 1, 16, 31, 33, 64, 10_000])
@pytest.mark.parametrize("where", ["list", "file", "callable"])
def test_key__of_another_length_is_named_by_number_and_not_shown(configure, file, length, where):
    bad = base64.urlsafe_b64encode(os.urandom(length)).decode() or "="
    if where == "list":
        configure(ENCRYPTION_KEYS=[NEW, bad])
    elif where == "callable":
        configure(ENCRYPTION_KEYS=lambda: [NEW, bad])
    else:
        file(NEW, bad)
    with pytest.raises(ConfigurationError, match=r"2 is not a Fernet key\. Make one with") as caught:
        encrypt(TEXT, HERE)
    assert not any(secret in visible(caught.value) for secret in (TEXT, NEW, bad) if len(secret) > 2)
    assert caught.value.__context__ is None
    found = checks.check_setting_values()
    assert [message.id for message in found] == ([] if where == "callable" else ["wechat_token.E002"])


@pytest.mark.parametrize("bad", ["", "密钥" * 16, OLD + OLD, OLD[:-1], "-" + OLD[1:-1] + "!"], ids=range(5))
def test_key__that_is_no_base64(configure, bad):
    configure(ENCRYPTION_KEYS=[bad])
    with pytest.raises(ConfigurationError, match="entry 1 is not a Fernet key"):
        encrypt(TEXT, HERE)


def test_key__as_other_tools_write_it(configure):
    raw = b"\xfb\xff" * 16
    configure(ENCRYPTION_KEYS=[base64.b64encode(raw).decode() + "\n"])
    ciphertext = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=[base64.urlsafe_b64encode(raw)])
    assert opens(ciphertext)


def test_key__twice_counts_once(configure):
    configure(ENCRYPTION_KEYS=[OLD])
    ciphertext = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=[NEW, NEW, OLD, NEW])
    assert opens(ciphertext)
    configure(ENCRYPTION_KEYS=[OLD, OLD])
    assert written_with_first_key(ciphertext, HERE)


def test_key__a_former_one_in_front_writes_again(configure):
    configure(ENCRYPTION_KEYS=[NEW, OLD])
    by_new = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=[OLD, NEW])
    assert opens(by_new)
    assert not written_with_first_key(by_new, HERE)
    by_old = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=[OLD])
    assert (opens(by_old), opens(by_new)) == (True, False)


# -- SECRET_KEY


def test_secret_key__opens_nothing_beside_keys_of_ones_own(configure, file):
    configure()
    derived = encrypt(TEXT, HERE)
    for own in (
        {"ENCRYPTION_KEYS": [NEW]},
        {"ENCRYPTION_KEYS": lambda: [NEW]},
        {"ENCRYPTION_KEYS_FILE": str(file(NEW))},
    ):
        configure(**own)
        assert not opens(derived)
        configure(**own, READ_DERIVED_KEYS=True)
        assert opens(derived)
        assert not written_with_first_key(derived, HERE)
        configure(**own)
        assert not opens(derived)


def test_secret_key__does_not_come_back_where_own_keys_are_set_and_gone(configure, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    for own in ({"ENCRYPTION_KEYS": list}, {"ENCRYPTION_KEYS_FILE": str(empty)}):
        configure(**own)
        with pytest.raises(ConfigurationError):
            encrypt(TEXT, HERE)


# -- the file


def test_file__stands_in_front_of_the_list_with_comments_and_blank_lines(configure, file):
    path = file("# made in spring", "", f"  {NEW}\r", OLD)
    configure(ENCRYPTION_KEYS_FILE=str(path), ENCRYPTION_KEYS=[THIRD])
    ciphertext = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=[THIRD])
    assert not opens(ciphertext)
    by_third = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS_FILE=str(path), ENCRYPTION_KEYS=[THIRD])
    assert opens(ciphertext)
    assert opens(by_third)
    assert not written_with_first_key(by_third, HERE)


def test_file__is_read_again_within_a_second_of_a_change(file, time):
    ciphertext = encrypt(TEXT, HERE)
    file(NEW, OLD)
    time.pass_(1)
    assert not written_with_first_key(ciphertext, HERE)
    assert opens(ciphertext)
    file(NEW)
    time.pass_(1)
    assert not opens(ciphertext)


@pytest.mark.parametrize(
    "content", [None, b"", b"# no key\n", OLD[:20].encode(), b"\xff" * 44, b"x" * 70_000], ids=range(6)
)
def test_file__that_is_gone_or_garbled_changes_nothing_but_for_a_new_process(file, time, caplog, content):
    ciphertext = encrypt(TEXT, HERE)
    path = file(content=content or b"")
    if content is None:
        path.unlink()
    for _ in range(3):
        time.pass_(1)
        assert opens(ciphertext)
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("WECHAT_TOKEN['ENCRYPTION_KEYS_FILE']")
    assert line.endswith("The keys read before stay in use.")
    assert OLD[:12] not in line
    [message] = checks.check_setting_values()
    assert (message.id, str(path) in message.msg) == ("wechat_token.E002", True)
    process.forget()
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS_FILE"):
        decrypt(ciphertext, HERE)
    file(OLD)
    time.pass_(1)
    assert opens(ciphertext)


def test_file__that_could_not_be_read_is_tried_again(file, time, caplog, monkeypatch):
    """Its owner was wrong, say: that is mended without a change of the content."""
    ciphertext = encrypt(TEXT, HERE)
    path, real = file(NEW, OLD), builtins.open

    def denied(name, *args, **kwargs):
        if name == str(path):
            raise PermissionError
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", denied)
        for _ in range(3):
            time.pass_(1)
            assert written_with_first_key(ciphertext, HERE)
    assert len([record for record in caplog.records if "stay in use" in record.getMessage()]) == 1
    time.pass_(1)
    assert not written_with_first_key(ciphertext, HERE)


def test_file__is_read_at_once_when_something_does_not_open(file):
    """Another process has read it, and written, within the second."""
    encrypt(TEXT, HERE)
    here = process.snapshot()
    file(NEW, OLD)
    process.restore(process.fresh())
    by_another = encrypt(TEXT, HERE)
    process.restore(here)
    assert opens(by_another)


def test_file__of_the_same_size_and_time_is_another(file, time, tmp_path):
    ciphertext, path = encrypt(TEXT, HERE), tmp_path / "keys"
    before = path.stat()
    path.write_text(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    time.pass_(1)
    assert not opens(ciphertext)


@pytest.mark.parametrize("path", ["/nowhere/keys", "\0", "/"])
def test_file__that_was_never_there(configure, path):
    configure(ENCRYPTION_KEYS_FILE=path)
    with pytest.raises(ConfigurationError, match=r"ENCRYPTION_KEYS_FILE.*cannot be read"):
        encrypt(TEXT, HERE)


# -- the callable


def test_callable__is_asked_once_in_a_process(configure):
    asked = []

    def vault():
        asked.append(1)
        return iter([NEW.encode(), OLD])

    configure(ENCRYPTION_KEYS=vault)
    ciphertexts = [encrypt(TEXT, HERE) for _ in range(5)]
    assert all(map(opens, ciphertexts))
    assert len(asked) == 1
    process.forget()
    assert opens(ciphertexts[0])
    assert len(asked) == 2


def test_callable__may_be_one_that_has_no_hash(configure):
    @dataclass
    class Vault:
        key: str

        def __call__(self):
            return [self.key]

    configure(ENCRYPTION_KEYS=Vault(NEW))
    assert opens(encrypt(TEXT, HERE))


def test_callable__is_asked_again_when_something_does_not_open(configure, time):
    told, asked = [OLD], []

    def vault():
        asked.append(1)
        return list(told)

    configure(ENCRYPTION_KEYS=[NEW])
    by_new = encrypt(TEXT, HERE)
    configure(ENCRYPTION_KEYS=vault)
    assert not opens(by_new)
    told.insert(0, NEW)
    time.pass_(29)
    assert not opens(by_new)
    time.pass_(1)
    assert opens(by_new)
    assert len(asked) == 2


@pytest.mark.parametrize("says", [None, [], "a" * 44, [1], [OLD, None], 5, ["bad"]])
def test_callable__that_gives_no_keys_is_an_error_at_first_and_a_warning_later(configure, time, caplog, says):
    told = [[OLD]]
    configure(ENCRYPTION_KEYS=lambda: told[0])
    ciphertext = encrypt(TEXT, HERE)
    told[0] = says
    time.pass_(30)
    assert not opens("gAAAA")
    assert opens(ciphertext)
    assert "The keys at hand stay in use." in caplog.text
    process.forget()
    with pytest.raises(ConfigurationError, match=r"WECHAT_TOKEN\['ENCRYPTION_KEYS'\]: .*callable"):
        encrypt(TEXT, HERE)


def test_callable__error_of_a_vault_is_named_by_its_type(configure):
    def vault():
        raise OSError(f"403 for token {TEXT}")

    configure(ENCRYPTION_KEYS=vault)
    with pytest.raises(ConfigurationError, match="the callable raised OSError") as caught:
        encrypt("text", HERE)
    assert TEXT not in visible(caught.value)


def test_settings__show_no_keys_of_either_source(configure):
    configure(ENCRYPTION_KEYS=lambda: [OLD], ENCRYPTION_KEYS_FILE="/run/keys")
    assert "lambda" not in repr(conf.get_settings())
