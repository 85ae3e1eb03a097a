"""The Chinese catalogue: complete, consistent, compiled. Needs no gettext tools; ``.ci/translations`` has them."""

from __future__ import annotations

import ast
import gettext
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import django
import django_celery_beat
import pytest
from django.utils import translation

import wechat_token
from wechat_token.exceptions import TransportError
from wechat_token.platforms.official_account import OfficialAccountAccessToken

PACKAGE = Path(wechat_token.__file__).parent
SOURCE = OfficialAccountAccessToken()
CATALOGUE = PACKAGE / "locale/zh_Hans/LC_MESSAGES/django"
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[a-zA-Z%]")
LINE = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) )?(".*")')


@dataclass
class Entry:
    comments: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  # by keyword: msgid, msgid_plural, msgstr, msgstr[0], ...

    @property
    def msgid(self) -> str:
        return self.texts["msgid"]

    @property
    def translations(self) -> list[str]:
        return [text for keyword, text in self.texts.items() if keyword.startswith("msgstr")]


def read_po(text: str) -> list[Entry]:
    entries = []
    for block in text.strip().split("\n\n"):
        entry, keyword = Entry(), ""
        for line in block.splitlines():
            if line.startswith("#"):
                entry.comments.append(line)
                continue
            found = LINE.fullmatch(line)
            assert found is not None, line
            keyword = found.group(1) or keyword
            entry.texts[keyword] = entry.texts.get(keyword, "") + ast.literal_eval(found.group(2))
        entries.append(entry)
    return entries


HEADER, *ENTRIES = read_po(CATALOGUE.with_suffix(".po").read_text("utf-8"))


def marked(tree: ast.AST) -> set[str]:
    """The English texts of all gettext calls, also of those inside f-strings, which xgettext does not see."""
    calls = {"_": 0, "gettext": 0, "gettext_lazy": 0, "ngettext": 0, "pgettext": 1, "pgettext_lazy": 1}
    return {
        node.args[calls[node.func.id]].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls
    }


def compiled(path: Path) -> gettext.GNUTranslations:
    with path.open("rb") as file:
        return gettext.GNUTranslations(file)


def test_catalogue__every_message_is_translated():
    assert len(ENTRIES) > 300
    assert [entry.msgid for entry in ENTRIES if not entry.translations or not all(entry.translations)] == []


def test_catalogue__has_every_text_of_the_code():
    texts = set().union(*(marked(ast.parse(path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py")))
    assert texts - {entry.msgid for entry in ENTRIES} == set()


def test_catalogue__no_message_is_fuzzy_or_obsolete():
    comments = [line for entry in (HEADER, *ENTRIES) for line in entry.comments]
    assert [line for line in comments if "fuzzy" in line or line.startswith(("#~", "#|"))] == []


@pytest.mark.parametrize("keyword", ["msgid", "msgid_plural"])
def test_catalogue__placeholders_are_those_of_the_english_text(keyword):
    different = [
        (entry.texts[keyword], chinese)
        for entry in ENTRIES
        for chinese in entry.translations
        if keyword in entry.texts
        and Counter(PLACEHOLDER.findall(chinese)) != Counter(PLACEHOLDER.findall(entry.texts[keyword]))
    ]
    assert different == []


def test_catalogue__console_paths_are_those_of_the_english_text():
    steps = re.compile(r"[a-z0-9.]+\.qq\.com(?:/[a-z]+)?|→ [\u4e00-\u9fff]+")
    different = [
        entry.msgid
        for entry in ENTRIES
        if "→" in entry.msgid
        # "the account" stands for itself in English and is a step in Chinese.
        and steps.findall(entry.translations[0].replace("→ 对应账号 ", "")) != steps.findall(entry.msgid)
    ]
    assert different == []


def test_header__language_charset_and_plural():
    lines = HEADER.translations[0].splitlines()
    assert "Language: zh_Hans" in lines
    assert "Content-Type: text/plain; charset=UTF-8" in lines
    assert "Plural-Forms: nplurals=1; plural=0;" in lines


def test_compiled__says_what_the_source_says():
    path = CATALOGUE.with_suffix(".mo")
    chinese = compiled(path)
    differing = []
    for entry in ENTRIES:
        context, plural = entry.texts.get("msgctxt"), entry.texts.get("msgid_plural")
        key = entry.msgid if context is None else f"{context}\x04{entry.msgid}"
        said = chinese.gettext(key) if plural is None else chinese.ngettext(key, plural, 2)
        if said != entry.translations[0]:
            differing.append(entry.msgid)
    assert differing == []
    strings = struct.unpack_from("<I", path.read_bytes(), 8)[0]
    assert strings == 1 + len(ENTRIES)  # with the header


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (40001, "开发密钥"),
        (40013, "区分大小写"),
        (40164, "请把 203.0.113.7 加入该账号自己的 IP 白名单"),
        (40243, "请解冻"),
        (45009, "clear_quota"),
        (61004, "请把 203.0.113.7 加入第三方平台的 IP 白名单"),
        (89503, "请账号管理员"),
        (12345, "API 诊断工具"),
    ],
)
def test_errcode__advises_in_chinese(code, advice):
    with translation.override("zh-hans"):
        meaning = SOURCE.lookup(code)
        assert advice in meaning.advise("203.0.113.7")
        assert "The " not in str(meaning.summary)


def test_no_answer__advises_in_chinese():
    with translation.override("zh-hans"):
        assert (
            OfficialAccountAccessToken()
            .explain(TransportError("timed out", may_have_issued=True))
            .advise()
            .startswith("会自动重试。")
        )


@pytest.mark.parametrize("package", [django, django_celery_beat])
def test_catalogue__changes_no_word_of(package):
    """Catalogues of all apps are merged: another text for one of their msgids would show up all over the site."""
    ours = {entry.msgid: entry.translations[0] for entry in ENTRIES if "msgctxt" not in entry.texts}
    changed = {}
    for path in Path(package.__file__).parent.glob("**/locale/zh_Hans/LC_MESSAGES/django.mo"):
        theirs = compiled(path)
        for msgid, text in ours.items():
            if theirs.gettext(msgid) not in (msgid, text):
                changed[msgid] = (str(path), theirs.gettext(msgid), text)
    assert changed == {}
