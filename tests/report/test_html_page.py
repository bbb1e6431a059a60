"""The page as a document: complete, escaped, accessible, self-contained, the same every time."""

from __future__ import annotations

import ast
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import vmlab.report
from vmlab.errors import UsageError
from vmlab.report.html import report_html
from vmlab.report.junit import junit_xml
from vmlab.report.model import FilePart, SlotPart
from vmlab.report.store import load

NAMES = ["report", "passing", "broken", "empty", "nasty"]
VOID = {"meta", "link", "br", "img", "input", "hr"}
CSS = (Path(vmlab.report.__file__).parent / "pages" / "report.css").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Reads a page and keeps what the tests ask about; complains about tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def sources(samples: Any) -> dict[str, str]:
    return {name: report_html(getattr(samples, name)()) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_well_formed_with_unique_ids_and_links_that_lead_somewhere(sources: dict[str, str], name: str) -> None:
    page = Page(sources[name])
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]

    assert len(set(ids)) == len(ids)
    for tag, attributes in page.tags:
        for key in ("aria-labelledby", "aria-describedby", "href"):
            value = attributes.get(key) or ""
            if key != "href" or value.startswith("#"):
                assert value.lstrip("#") in [*ids, ""], f"{tag} {key}={value}"
    assert set(re.findall(r"url\(#([^)]+)\)", sources[name])) <= set(ids)


@pytest.mark.parametrize("name", NAMES)
def test_headings_are_in_order(sources: dict[str, str], name: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(sources[name]).tags if re.fullmatch(r"h[1-6]", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_from_outside_and_no_script(sources: dict[str, str], name: str) -> None:
    page = Page(sources[name])

    assert not page.all("script", "img", "iframe", "object", "embed", "base", "form")
    for tag, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes), f"a handler in {tag}"
        for key in ("href", "src", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:,")), f"{tag} {key}={value}"
    assert not re.search(r"url\((?!#)|@import", sources[name])
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


@pytest.mark.parametrize("name", NAMES)
def test_tables_have_captions_scopes_and_landmarks_are_there(sources: dict[str, str], name: str) -> None:
    page = Page(sources[name])

    assert len(page.all("table")) == len(page.all("caption"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert [len(page.all(tag)) for tag in ("main", "nav", "footer")] == [1, 1, 1]
    assert page.all("html")[0]["lang"] == "en"
    assert all(attributes.get("role") == "img" for attributes in page.all("svg"))
    skip = next(attributes for attributes in page.all("a"))
    assert (skip["class"], skip["href"]) == ("skip", "#main")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_report_gives_the_same_page(samples: Any, sources: dict[str, str], name: str) -> None:
    assert report_html(getattr(samples, name)()) == sources[name]


def test_the_wait_for_a_slot_is_told_and_does_not_count(samples: Any) -> None:
    report = samples.report()
    slot = SlotPart(boot_id="b", asked_s=100.0, from_s=117.5, until_s=121.0, memory_bytes=1 << 30, cpus=1, exclusive=False)
    waited = report.model_copy(update={"run": report.run.model_copy(update={"slot": slot})})
    assert "Ran for 3.87 s, after it had waited 17.5 s for a slot, under KVM" in Page(report_html(waited)).words()
    assert b'time="3.87' in junit_xml(waited)


def test_what_a_reader_finds(sources: dict[str, str]) -> None:
    words = Page(sources["report"]).words()

    for part in (
        "Error: Of 6 checks, 1 could not be judged, 1 fails, 1 is inconclusive",
        "5 of 10 points",
        "23 November 2026, 20:15:00 UTC",
        "Ran for 21.4 s under KVM (/dev/kvm ran a test program in 4 ms), guest vm from debian-12",
        "The lab: EAGAIN — ✗did not hold",
        "The student: ENOMEM — ✓held",
        "The student: It is dead already. — left to the instructor",
        "Unless SIGCHLD is ignored",
        "vmlab run zombies --param zombies=4000 --accel kvm",
        "No data: the run recorded nothing that this plot could show.",
        "This host cannot show it; the reason is given.",
        "17 points, Zombies from 0 to 4,000, Kernel memory from",
    ):
        assert part in words, part
    assert (
        words.index("What needs attention")
        < words.index("Which errno")
        < words.index("Where the time went")
        < words.index("Every verdict above")
    )


def test_a_verdict_leads_to_its_evidence(samples: Any) -> None:
    report = samples.report()
    page = report_html(report)
    (first,) = {place.split(".")[0] for place in report.checks[0].rests_on}
    assert f'<a class="mono" href="#evidence-{first}">{first}</a>' in page
    assert f'<details id="evidence-{first}">' in page
    foreign = report.checks[0].model_copy(update={"rests_on": ["parameters.zombies", "run.accelerator", "<nowhere>.x", f"{first}.a[*].b"]})
    page = report_html(report.model_copy(update={"checks": [foreign]}))
    assert 'href="#repeat">parameters</a><span class="small muted">: zombies</span>' in page
    assert 'href="#machines">run</a>' in page
    assert '<span class="mono">&lt;nowhere&gt;</span>' in page
    assert 'class="small muted">: a[*].b</span>' in page


def test_headlines(samples: Any, sources: dict[str, str]) -> None:
    assert "All 5 checks pass" in Page(sources["passing"]).words()
    assert "The run broke before it was finished" in Page(sources["broken"]).words()
    assert "The run broke: the kernel of guest vm panicked" in Page(sources["broken"]).words()
    assert "Attempted to kill init" in Page(sources["broken"]).words()
    assert "This run has no checks" in Page(sources["empty"]).words()
    unseen = samples.report({"adoption": {"subreaper": False}}, checks=samples.checks()[4:5])
    assert "Nothing here can be observed on this host" in report_html(unseen)


def test_hostile_strings_are_shown_and_harmless(samples: Any, sources: dict[str, str]) -> None:
    source = sources["nasty"]

    assert "<script" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert "{{ 7*7 }}" in source
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ufffe]", source)
    assert 'href="javascript' not in source
    assert 'href="../' not in source


def test_huge_values_are_cut(samples: Any, sources: dict[str, str]) -> None:
    assert len(sources["nasty"]) < 400_000
    assert "more characters are in report.json" in sources["nasty"]
    many = {f"o{i}": {"text": "y" * 30_000} for i in range(100)}
    assert len(report_html(samples.report(many))) < 1_000_000
    rows = samples.data()
    rows["accumulation"]["samples"] = [{"zombies": i, "slab": i * 1000, "stacks": 5} for i in range(50_000)]
    page = report_html(samples.report(rows))
    assert "The first 200 of 50,000 rows; all are in report.json." in page
    assert len(page) < 600_000


def test_forged_numbers_break_nothing(samples: Any, tmp_path: Path) -> None:
    value = json.loads(samples.report(files=[FilePart(path="x.log", sha256="", size_bytes=1)]).model_dump_json())
    huge = 10**400
    value["host"]["memory_bytes"] = value["host"]["cpus"] = value["evidence"]["files"][0]["size_bytes"] = huge
    value["run"]["duration_s"] = value["phases"][1]["start_s"] = value["guests"][0]["steps"][0]["at_s"] = 1e300
    value["phases"][0] |= {"start_s": -5, "end_s": -9, "depth": -3}
    value["answers"][1]["measured"] = value["run"]["parameters"]["zombies"] = huge
    value["checks"] = [value["checks"][0] | {"id": name, "points": -1e300, "after": ["nobody"]} for name in ("a", "a", "A", "", "é")]
    value["score"] |= {"counts": {}, "possible": -1}
    (tmp_path / "report.json").write_text(json.dumps(value))

    page = Page(report_html(load(tmp_path)))

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    (tmp_path / "report.json").write_text(json.dumps(value).replace('"load_1min": 0.42', '"load_1min": 1e999'))
    with pytest.raises(UsageError, match=r"host\.load_1min: Input should be a finite number"):
        load(tmp_path)


def test_a_guest_that_runs_guests_says_by_what(samples: Any) -> None:
    said = "AMD SVM with nested paging: hardware walk emulated by QEMU TCG"
    assert said in Page(report_html(samples.report(guests=samples.guests(virtualisation=said)))).words()


def test_files_with_plain_names_are_linked(samples: Any) -> None:
    report = samples.report(files=[FilePart(path="console-vm.log", sha256="ab", size_bytes=2048)])

    assert '<a href="console-vm.log">console-vm.log</a>' in report_html(report)
    assert "2 KiB" in report_html(report)


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6});", block))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast_is_sufficient(theme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    variables = colours(blocks[0]) | {"light": {}, "dark": colours(blocks[1]), "print": colours(blocks[2])}[theme]
    kinds = ("pass", "fail", "inconclusive", "error", "not-observable")
    texts = [(ink, paper) for ink in ("ink", "muted", "accent") for paper in ("bg", "surface", "sunk")]
    texts += [(kind, paper) for kind in kinds for paper in (f"{kind}-bg", "surface", "bg")]
    texts += [("ink", f"{kind}-bg") for kind in kinds]

    for ink, paper in texts:
        assert contrast(variables[f"--{ink}"], variables[f"--{paper}"]) >= 4.5, f"{theme}: {ink} on {paper}"
    # (A claim's badge is hollow, in the colours of three verdicts on a card; a term's dotted line needs less, as it is no text.)
    for index in range(1, 6):
        assert contrast(variables[f"--plot-{index}"], variables["--surface"]) >= 3, f"{theme}: plot-{index}"


def markup(code: str) -> list[str]:
    """The texts in code that are HTML or SVG. (Docstrings are not shown in a page.)"""
    tree = ast.parse(code)
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [text for text in texts if isinstance(text, str) and re.search(r"</?[a-z]\w*[ />]|&(lt|gt|amp|quot|#\d+);", text)]


def test_markup_stands_in_templates() -> None:
    folder = Path(vmlab.report.__file__).parent
    # Markdown has one sign that only HTML can escape.
    found = {path.name: texts for path in folder.glob("*.py") if (texts := sorted(markup(path.read_text())))}
    assert found == {"summary.py": ["&gt;", "&lt;"]}
    builders = [path.name for path in folder.glob("*.py") if "xml.etree" in path.read_text()]
    assert builders == ["svg.py"], "matplotlib's SVG is adapted there; whatever is drawn by us has a template"


def test_control_markup_in_code_is_seen() -> None:
    assert markup("page = f'<p class={x}>'")
    assert markup("a = '</svg>'")
    assert markup("a + '<br>'")
    assert not markup('"""A <p> in words."""\nif a < b > c: pass')


def article(page: str, check: str) -> str:
    """The source of a check's card."""
    return page.partition(f'<article id="check-{check.replace("_", "-")}"')[2].partition("</article>")[0]


def test_a_claim_has_a_badge_of_its_own_beside_the_verdict_and_no_quotation_marks(sources: dict[str, str]) -> None:
    card = article(sources["passing"], "kill_does_not_remove_a_zombie")
    words = Page(card).words()
    assert "Pass" in words.split("Claim Z4")[0]
    assert "Claim Z4 ≠ Claim wrongZombies can be removed with kill -9.Instead: A dead process takes no signals." in words
    assert "“" not in words
    assert "How a claim stands" in Page(sources["passing"]).words()


def test_a_report_of_a_vmlab_without_standings_shows_none(samples: Any, tmp_path: Path) -> None:
    value = json.loads(samples.passing().model_dump_json())
    for claim in value["lab"]["claims"].values():
        del claim["stands"]
    for check in value["checks"]:
        del check["stands"], check["method"]
    for key in ("kept_for_the_reader", "glossary"):
        del value["lab"][key]
    (tmp_path / "report.json").write_text(json.dumps(value))

    page = report_html(load(tmp_path))

    assert 'class="standing' not in page
    assert "How a claim stands" not in Page(page).words()
    assert "More exactly: By the nearest" in Page(page).words()


def test_the_method_of_a_check_is_folded_under_it(sources: dict[str, str]) -> None:
    card = article(sources["report"], "a_zombie_holds_a_few_kib_of_slab")
    method = card.partition('<details class="method">')[2].partition("</details>")[0]
    words = [Page(f"<div>{part}</div>").words() for part in re.findall(r"<p>(.*?)</p>", method, re.DOTALL)]
    assert words == [
        "The slab memory that the kernel counts is read before and after the zombies are made.",
        "What else takes or frees memory meanwhile shows as a batch that stands apart.",
    ]
    assert "<details" not in article(sources["report"], "an_unreaped_child_is_a_zombie")


def test_predictions_are_counted_at_the_top_and_say_how_near_they_had_to_come(samples: Any, sources: dict[str, str]) -> None:
    words = Page(sources["report"]).words()
    head = words.partition("On this page")[0].partition("Checks")[0]
    assert "Predictions: 1 of the student's 2 predictions held; 1 more cannot be compared." in head
    alone = Page(report_html(samples.report(answers={}))).words()
    assert "1 of the lab's own 2 predictions held; 1 more cannot be compared." in alone
    assert "predictions held" not in Page(sources["empty"]).words()
    card = Page(article(sources["report"], "a_zombie_holds_a_few_kib_of_slab")).words()
    assert "The student: 4,096 bytes — ✗did not hold within 25 % (" in card
    assert "The lab: 10,240 bytes — ✓held, within 25 % (" in card
    assert "KiB" not in card.partition("Predicted")[2].partition("Claim")[0], "what was asked in bytes is shown in bytes"


def test_evidence_that_is_kept_for_the_reader_is_marked_where_it_lies(sources: dict[str, str]) -> None:
    folded = re.findall(r'(<summary><span class="mono">(\w+)</span>.*?)</details>', sources["report"], re.DOTALL)
    words = {name: Page(source).words() for source, name in folded}
    marked = {name for name, text in words.items() if "Kept for the reader, judged by no check" in text}
    assert marked == {"anatomy", "exhaustion"}
    assert words["anatomy"].endswith("judged by no check: anatomy.status. The whole of /proc/PID/status, to look at.")
    assert "judged by no check: exhaustion.limits[*].after." in words["exhaustion"]


def test_terms_lead_to_the_glossary(sources: dict[str, str]) -> None:
    page = sources["report"]
    links = re.findall(r'<a class="term" href="#(term-[^"]+)">([^<]+)</a>', page)
    assert {"zombie", "zombies", "subreaper"} <= {word.lower() for _, word in links}
    terms = dict(re.findall(r'<dt id="(term-[^"]+)">([^<]+)</dt>', page))
    assert {anchor for anchor, _ in links} <= set(terms)
    assert "descriptor" in terms.values(), "a lab's own term, which only a plot uses"
    assert "runlevel" not in terms.values()
    for name in ("attention", "checks"):
        for link in re.findall(r"<a [^>]*>(.*?)</a>", page.partition(f'id="{name}"')[2].partition("</section>")[0], re.DOTALL):
            assert "<a " not in link, "a link within a link"
