"""The page for everybody: axe-core, keyboard alone, a phone's width, readable errors. A tiny random model."""

from pathlib import Path

import axe_playwright_python
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from michiai.voice_michiai import Voice  # noqa: E402

import browser  # noqa: E402
from browser import NEEDS_CHROMIUM, open_page, state, wait_state  # noqa: E402
from space_server import running  # noqa: E402

pytestmark = NEEDS_CHROMIUM
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
TABS = ("Live", "Turn by turn", "Clone a voice", "API")


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    with running(place / "log.txt", MODEL_ID=str(folder), MAX_CONVERSATIONS="1", TMPDIR=str(place)) as found:
        yield found
        assert list(place.glob("michiai-*/*")), "visitors' files are here"
    assert not list(place.glob("michiai-*")), "and gone with the process"


@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as found:
        yield found


def ask(page) -> None:
    """A click on an example is enough."""
    page.get_by_role("tab", name="Turn by turn").click()
    page.get_by_role("button", name="When is the meeting with Nora?").click()
    page.locator("table.transcript").wait_for(timeout=60_000)


def clone(page) -> None:
    page.get_by_role("tab", name="Clone a voice").click()
    page.get_by_role("button", name="ada").click()
    page.get_by_label("This is my own voice").check()
    page.get_by_text("0:05").first.wait_for(timeout=30_000)  # the recording is there
    page.get_by_role("button", name="Clone", exact=True).click()
    page.locator("a[download='voice.safetensors']").wait_for(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(address, chromium, scheme: str) -> None:
    page = open_page(chromium, address, color_scheme=scheme)
    page.evaluate(AXE)
    found = {}
    for tab, do in [*((tab, None) for tab in TABS), ("Turn by turn", ask), ("Clone a voice", clone)]:
        page.get_by_role("tab", name=tab).click()
        if do:
            do(page)
        page.wait_for_timeout(700)
        result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        for v in result["violations"]:
            print(scheme, tab, v["impact"], v["id"], [node["target"] for node in v["nodes"]][:5])
            if v["impact"] in ("serious", "critical"):
                found[f"{tab}, {do and do.__name__}: {v['id']}"] = [node["html"][:200] for node in v["nodes"]][:3]
    assert found == {}
    assert page.elsewhere == [] and page.problems == []


def test_the_keyboard_is_enough(address, chromium) -> None:
    page = open_page(chromium, address, mouth=True)

    def focus(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} is not reached by the Tab key")

    focus("michi-talk")
    page.keyboard.press("Enter")
    wait_state(page, "talking")
    focus("michi-mute")
    page.keyboard.press("Space")
    assert page.get_attribute("#michi-mute", "aria-pressed") == "true"
    focus("michi-tell-text")
    page.keyboard.type("the train leaves at nine.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".score .note:has-text('the train leaves at nine')")
    page.locator("#michi-talk").focus()
    page.keyboard.press("Space")
    wait_state(page, "idle")
    page.get_by_role("tab", name="Live").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Answer").wait_for(timeout=10_000)


def test_it_fits_a_phone(address, chromium) -> None:
    page = open_page(
        chromium, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    for tab in TABS:
        if page.get_by_role("tab", name=tab).is_visible():
            page.get_by_role("tab", name=tab).click()
        else:  # behind Gradio's menu of tabs that found no room
            page.locator(".overflow-menu > button").click()
            page.locator(".overflow-dropdown button", has_text=tab).click()
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    page.reload()
    page.wait_for_selector("#michi-talk")
    box = page.locator("#michi-talk").bounding_box()
    assert (
        box["width"] >= 150
        and 0 <= box["x"]
        and box["x"] + box["width"] <= 390
        and box["y"] + box["height"] <= 844
    )


def test_bad_input_is_a_sentence_on_the_page(address, chromium) -> None:
    page = open_page(chromium, address)
    page.get_by_role("tab", name="Turn by turn").click()
    page.get_by_role("button", name="Answer").click()
    page.get_by_text("No recording was given; expected speech").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Clone a voice").click()
    page.get_by_role("button", name="Clone", exact=True).click()
    page.get_by_text("Consent is not given").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Live").click()
    page.locator("#michi-scene summary").click()
    page.fill("#michi-context", "the train is red and late " * 120)
    page.click("#michi-talk")
    page.wait_for_function(
        "document.getElementById('michi-state').textContent.includes('shorten the instructions')",
        timeout=30_000,
    )
    assert state(page) == "idle" and "Traceback" not in page.content()


def voice_asked_in(page, do) -> str | bytes:
    """The voice in which the turn-by-turn tab's answer is when `do` asks: its name, or its file."""

    def given(count: int):
        return page.expect_request(lambda r: "/queue/join" in r.url and len(r.post_data_json["data"]) == count, timeout=60_000)

    with given(2), given(5) as asked:  # it is shown only if it came
        do()
    _, file, _, _, name = asked.value.post_data_json["data"]
    return Path(file["path"]).read_bytes() if file else name


def test_a_cloned_voice_is_used_in_the_other_tabs(address, chromium) -> None:
    page = open_page(chromium, address)
    page.get_by_role("tab", name="Clone a voice").click()
    page.get_by_role("button", name="Use this voice in the other tabs").click()
    page.get_by_text("There is no voice yet: clone one first").wait_for(timeout=30_000)
    clone(page)
    with page.expect_download() as saved:
        page.locator("a[download='voice.safetensors']").click()
    mine = saved.value.path().read_bytes()
    for name in ("<i>mine", "ada"):
        page.get_by_label("Name of the voice").fill(name)
        page.get_by_role("button", name="Use this voice in the other tabs").click()
        page.get_by_text(f"“{name}” is chosen in the Live tab").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Live").click()
    assert page.input_value("#michi-voice") == "ada (yours)"
    page.get_by_role("tab", name="Turn by turn").click()
    chosen = page.locator("input[aria-label='Voice']:visible")
    assert chosen.input_value() == "ada (yours)"
    assert voice_asked_in(page, lambda: ask(page)) == mine
    for name, voice in (("cleo", "cleo"), ("<i>mine", mine)):
        chosen.click()
        page.get_by_role("option", name=name, exact=True).click()
        assert voice_asked_in(page, page.get_by_role("button", name="Answer").click) == voice
    page.get_by_role("tab", name="Clone a voice").click()
    page.get_by_text("Read a text aloud").click()
    assert chosen.input_value() == "ada (yours)"
    with page.expect_request(lambda r: "/queue/join" in r.url) as read:
        page.get_by_role("button", name="Read", exact=True).click()
    assert Path(read.value.post_data_json["data"][1]["path"]).read_bytes() == mine
    assert page.problems == []


def test_a_wrong_voice_file_is_refused_when_it_is_given(address, chromium, tmp_path: Path) -> None:
    wrong, voice = tmp_path / "weights.safetensors", tmp_path / "mine.safetensors"
    save_file({"latents": torch.zeros(9, 6)}, wrong)
    Voice(torch.zeros(9, 6)).save(voice)
    page = open_page(chromium, address)
    page.locator("#michi-scene summary").click()
    page.set_input_files("#michi-voice-file", voice)
    page.wait_for_function("document.getElementById('michi-voice').value === 'mine'", timeout=30_000)
    page.set_input_files("#michi-voice-file", wrong)
    page.get_by_text("weights.safetensors is refused. The voice file is not a voice of version 1").wait_for(timeout=30_000)
    assert page.input_value("#michi-voice") == "mine" and page.input_value("#michi-voice-file") == ""
    page.get_by_role("tab", name="Turn by turn").click()
    given = page.get_by_role("tabpanel").locator("input[type=file][accept='.safetensors']")
    given.set_input_files(wrong)
    page.locator(".toast-text", has_text="The voice file is not a voice of version 1; expected").wait_for(timeout=30_000)
    given.set_input_files(voice)  # there is room for it again
    mine = page.locator("a[download='mine.safetensors']:visible")
    mine.wait_for(timeout=30_000)
    page.wait_for_timeout(1000)
    assert mine.is_visible()
    page.locator("input[aria-label='Voice']:visible").click()
    page.get_by_role("option", name="cleo").click()  # instead of the file
    mine.wait_for(state="hidden", timeout=30_000)
    assert page.problems == []


def test_a_blocked_microphone_is_explained(address, chromium) -> None:
    refuse = "async () => { throw new DOMException('', 'NotAllowedError'); }"
    deny = f"navigator.mediaDevices.getUserMedia = {refuse};"
    page = open_page(chromium, address, script=deny)
    page.click("#michi-talk")
    page.wait_for_function(
        "document.getElementById('michi-state').textContent.includes('microphone is blocked')"
    )
    assert state(page) == "idle" and page.problems == []


SLOW_RELAYS = """;{ const get = window.fetch; window.fetch = async (...what) => {
  if (String(what[0]).includes("live/ice")) { window.__asked = true; await new Promise((done) => setTimeout(done, 1000)); }
  return get(...what); }; }"""
SLOW_ERROR = """delete window.RTCPeerConnection; { const Real = WebSocket; window.WebSocket = class extends Real {
  constructor(...what) { super(...what);
    this.slow = what[0].includes("websocket/offer") && !window.__asked;
    if (this.slow) window.__asked = true; }
  set onopen(hear) { if (!this.slow) super.onopen = hear; }
  set onerror(hear) { if (this.slow) setTimeout(hear, 2000); } }; }"""


def stop_while_it_connects(page) -> None:
    page.click("#michi-talk")
    page.wait_for_function("window.__asked")
    page.wait_for_timeout(600)  # not a double click
    page.click("#michi-talk")
    wait_state(page, "idle")


def test_a_conversation_that_was_stopped_leaves_no_connection(address, chromium) -> None:
    page = open_page(chromium, address, mouth=True, script=SLOW_RELAYS)
    stop_while_it_connects(page)
    page.wait_for_function("window.__ear.pc && window.__ear.pc.signalingState === 'closed'", timeout=10_000)
    assert "forgotten" in page.inner_text("#michi-state") and page.problems == []


def test_a_conversation_that_was_stopped_does_not_stop_the_next(address, chromium) -> None:
    page = open_page(chromium, address, mouth=True, script=SLOW_ERROR)
    stop_while_it_connects(page)
    page.click("#michi-talk")
    wait_state(page, "talking")
    page.wait_for_timeout(3000)
    assert state(page) == "talking" and page.problems == []
    page.click("#michi-talk")
    wait_state(page, "idle")


def test_without_javascript_it_says_what_it_needs(address, chromium) -> None:
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(address, wait_until="domcontentloaded")
    assert "needs JavaScript" in page.inner_text("body")


def test_mute_sends_silence(address, chromium) -> None:
    page = open_page(chromium, address)  # the fake microphone beeps
    page.click("#michi-talk")
    wait_state(page, "talking")
    level = "() => +getComputedStyle(document.getElementById('michi-level-user')).getPropertyValue('--level')"
    page.wait_for_function(f"({level})() > 0.1", timeout=15_000)
    page.click("#michi-mute")
    page.wait_for_function(f"({level})() === 0", timeout=15_000)
    page.wait_for_timeout(1500)
    assert page.evaluate(level) == 0
    page.click("#michi-talk")
    wait_state(page, "idle")
