"""The Space in a real Chromium: a conversation with the committed checkpoint, by voice."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

import browser
from browser import NEEDS_CHROMIUM, open_page, recorded, say, state, talk, wait_state, words
from helpers import ROOT
from space_server import running

pytestmark = NEEDS_CHROMIUM
QUESTIONS = json.loads((ROOT / "tests" / "questions.json").read_text())
LOUD = 0.01  # rms of 10 ms: -40 dB of full scale


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    if "SPACE_URL" in os.environ:  # one that runs already
        yield os.environ["SPACE_URL"]
        return
    with running(tmp_path_factory.mktemp("space") / "log.txt", MAX_CONVERSATIONS="2") as found:
        yield found


def speech(text: str, voice: dict) -> np.ndarray:
    from michiai.data.tts import VoiceSpec, is_held_out, synthesise

    spec = VoiceSpec(**voice)
    assert is_held_out(spec), "a voice that was never trained on"
    return synthesise(text, spec).audio


def right(asked: dict, said: str) -> bool:
    from michiai.data.script import Question, is_right

    return is_right(Question(0, asked["kind"], tuple(asked["accept"])), said)


def wait_silent(page, seconds: float = 1.0, timeout: float = 25.0) -> None:
    """Until the model has not spoken for a while."""
    page.evaluate("window.__since = performance.now()")
    page.wait_for_function(
        """wait => { const words = document.getElementById('michi-state').textContent;
        if (words.startsWith('It speaks')) window.__since = performance.now();
        return performance.now() - window.__since > wait; }""",
        arg=seconds * 1000,
        timeout=timeout * 1000,
    )


def wait_words(page, who: str, timeout: float = 20.0) -> None:
    page.wait_for_selector(f".utterance .{who} .words:not(:empty)", timeout=timeout * 1000)


def levels(audio: np.ndarray) -> np.ndarray:
    """Rms of 10 ms pieces at 48 kHz."""
    return np.sqrt(np.square(audio[: len(audio) // 480 * 480].reshape(-1, 480)).mean(1))


def heard_by_referee(audio: np.ndarray) -> str:
    from michiai.evaluation.referees import at_rate, recognise

    return " ".join(recognise(at_rate(audio, browser.RATE)))


def ask(address: str, folder: Path) -> dict:
    """One conversation, Chromium's own fake microphone saying the question: what both sides came to."""
    question = QUESTIONS["question"]
    audio = speech(question["text"], question["voice"])
    wav = folder / "question.wav"
    rate = 48_000
    quiet = np.zeros(6 * 16_000, np.float32)  # while it connects
    sound = np.repeat(np.concatenate([quiet, audio, np.zeros(16_000 * 20, np.float32)]), 3)
    soundfile.write(wav, sound, rate, subtype="PCM_16")
    with browser.browser(wav) as chromium:
        page = open_page(chromium, address)
        talk(page)
        wait_words(page, "user")
        wait_words(page, "own")
        wait_silent(page)
        page.wait_for_timeout(500)
        audio, _ = recorded(page)
        stats = page.evaluate("""async () => { const out = {};
            (await window.__ear.pc.getStats()).forEach(s => {
            if (s.type === 'inbound-rtp') out.received = s.packetsReceived;
            if (s.type === 'outbound-rtp') out.sent = s.packetsSent; }); return out; }""")
        result = {
            "user": words(page, "user"),
            "own": words(page, "own"),
            "audio": audio,
            "problems": page.problems,
            "elsewhere": page.elsewhere,
            "line": page.inner_text("#michi-line"),
            "step": page.inner_text("#michi-step"),
            **stats,
        }
        page.click("#michi-talk")
        wait_state(page, "idle")
        result["forgotten"] = page.inner_text("#michi-state")
    print({k: v for k, v in result.items() if k != "audio"})
    return result


@pytest.fixture(scope="module")
def asked(address, tmp_path_factory) -> dict:
    return ask(address, tmp_path_factory.mktemp("mic"))


def test_the_transcript_shows_both_sides_while_audio_flows_both_ways(asked) -> None:
    wanted = set(QUESTIONS["question"]["text"].split())
    got = set(asked["user"].split())
    assert len(wanted & got) >= 0.5 * len(wanted), (wanted, got)
    assert asked["own"]
    assert asked["received"] > 100 and asked["sent"] > 100
    assert levels(asked["audio"]).max() > LOUD, "the answer sounds"
    assert "WebRTC" in asked["line"] and "ms" in asked["step"]
    assert asked["problems"] == [] and asked["elsewhere"] == []
    assert "forgotten" in asked["forgotten"]


@pytest.mark.xfail(
    QUESTIONS["question"]["right"] < QUESTIONS["offsets"],
    strict=False,
    reason=f"right at {QUESTIONS['question']['right']} of {QUESTIONS['offsets']} offsets",
)
def test_the_answer_is_right(asked) -> None:
    assert right(QUESTIONS["question"], asked["own"]), asked["own"]


@pytest.mark.xfail(
    QUESTIONS["question"]["recognised"] < QUESTIONS["offsets"],
    strict=False,
    reason="the referee understands this checkpoint's right answer "
    f"{QUESTIONS['question']['recognised']} of {QUESTIONS['offsets']} times",
)
def test_the_referee_hears_the_right_answer(asked, address, tmp_path) -> None:
    heard = [heard_by_referee(asked["audio"])]
    while not right(QUESTIONS["question"], heard[-1]) and len(heard) < 3:  # no two answers sound alike: two more tries
        heard.append(heard_by_referee(ask(address, tmp_path)["audio"]))
    assert right(QUESTIONS["question"], heard[-1]), heard


@pytest.mark.skipif(
    "interruption" not in QUESTIONS,
    reason="the checkpoint yields to no interruption; see scripts/choose_question.py",
)
def test_an_interruption_makes_it_stop(address) -> None:
    case = QUESTIONS["interruption"]
    first, second = speech(case["text"], case["voice"]), speech(case["then"], case["voice"])
    stops = []
    with browser.browser() as chromium:
        page = open_page(chromium, address, mouth=True)
        for _ in range(
            3
        ):  # the model is not made to be asked thrice: one stop of three must do, and is measured
            talk(page)
            page.wait_for_timeout(500)
            say(page, first, 16_000)
            page.wait_for_function(
                "document.getElementById('michi-state').textContent.startsWith('It speaks')", timeout=20_000
            )
            page.wait_for_timeout(1600)
            began = say(page, second, 16_000)
            page.wait_for_timeout(3500)
            audio, start = recorded(page)
            loud = levels(audio) > LOUD
            at = round((began - start) / 10)
            sounding = loud[at - 30 : at].any()
            quiet = next(
                (i for i in range(at, len(loud) - 30) if not loud[i : i + 30].any()), None
            )  # 0.3 s of silence
            if sounding and quiet is not None:
                stops.append((quiet - at) / 100)
            page.click("#michi-talk")
            wait_state(page, "idle")
            if stops and stops[-1] <= 1.5:
                break
    print("seconds from the interruption to silence:", stops)
    assert stops and min(stops) <= 1.5, stops


def test_a_second_conversation_knows_nothing_of_the_first(address) -> None:
    question = QUESTIONS["question"]
    with browser.browser() as chromium:
        page = open_page(chromium, address, mouth=True)
        page.evaluate("""() => { const send = WebSocket.prototype.send; window.__frames = [];
            const Real = WebSocket; window.WebSocket = class extends Real { constructor(...a) { super(...a);
              this.addEventListener('message', e => { const m = JSON.parse(e.data);
                if (m.type === 'frame' || m.type === 'ready') window.__frames.push(m); }); } }; }""")
        talk(page)
        say(page, speech(question["text"], question["voice"]), 16_000)
        wait_words(page, "user")
        page.fill("#michi-tell-text", "the train leaves at nine.")
        page.press("#michi-tell-text", "Enter")
        page.wait_for_selector(".score .note:has-text('the train leaves at nine')")
        page.click("#michi-talk")
        wait_state(page, "idle")
        talk(page)
        page.wait_for_timeout(1500)
        assert words(page, "user") == "" and page.locator(".score .note").count() == 0
        frames = page.evaluate("window.__frames")
        ready = [i for i, m in enumerate(frames) if m["type"] == "ready"]
        assert len(ready) == 2 and frames[ready[0]]["id"] != frames[ready[1]]["id"]
        assert frames[ready[1] + 1]["index"] == 0, "a fresh session counts its frames from nothing"
        page.click("#michi-talk")


def test_two_browsers_talk_and_a_third_waits(address) -> None:
    with browser.browser() as chromium:
        pages = [open_page(chromium, address, mouth=True) for _ in range(3)]
        talk(pages[0])
        talk(pages[1])
        say(pages[0], speech(QUESTIONS["question"]["text"], QUESTIONS["question"]["voice"]), 16_000)
        pages[2].click("#michi-talk")
        wait_state(pages[2], "waiting")
        assert "You are next" in pages[2].inner_text("#michi-state")
        wait_words(pages[0], "user")
        assert words(pages[1], "user") == "", "the second conversation heard nothing of the first"
        began = time.monotonic()
        pages[0].context.close()  # the tab is closed
        wait_state(pages[2], "talking", 5)
        print(f"a closed tab's place was taken after {time.monotonic() - began:.2f} s")
        assert state(pages[1]) == "talking"


STALL = """const Real = WebSocket; window.WebSocket = class extends Real {
    set onmessage(hear) { super.onmessage = (event) => window.__stalled || hear(event); } };"""
REFUSE = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); };"


def wait_state_words(page, text: str, timeout: float = 5) -> None:
    page.wait_for_function(
        "text => document.getElementById('michi-state').textContent.includes(text)", arg=text, timeout=timeout * 1000
    )


def test_a_stalled_connection_is_said(address) -> None:
    with browser.browser() as chromium:
        page = open_page(chromium, address, mouth=True, script=STALL)
        page.dblclick("#michi-talk")  # starts, and does not stop at once
        wait_state(page, "talking")
        page.click("#michi-mute")
        wait_state_words(page, "muted")
        page.evaluate("window.__stalled = true")
        wait_state_words(page, "interrupted")
        page.evaluate("window.__stalled = false")
        wait_state_words(page, "muted")
        page.evaluate("window.__stalled = true")
        wait_state(page, "idle", 14)
        assert "lost" in page.inner_text("#michi-state") and page.inner_text("#michi-line") == ""


def test_without_a_microphone_a_recording_asks(address) -> None:
    with browser.browser() as chromium:
        page = open_page(chromium, address, script=REFUSE)
        page.click("#michi-talk")
        wait_state_words(page, "play it a question")
        page.click("#michi-play")
        wait_words(page, "user")
        wait_words(page, "own")
        page.fill("#michi-tell-text", "red " * 300)
        page.press("#michi-tell-text", "Enter")
        page.wait_for_function("document.getElementById('michi-line').textContent.includes('too long')")
        assert page.input_value("#michi-tell-text"), "what is refused stays"
        page.get_by_role("tab", name="API").click()
        page.get_by_role("button", name="Live conversation: Stop").click()
        page.get_by_role("tab", name="Live").click()
        assert state(page) == "idle" and page.problems == []


def test_it_falls_back_to_the_websocket_and_says_so(address) -> None:
    question = QUESTIONS["question"]
    with browser.browser() as chromium:
        page = open_page(chromium, address, mouth=True, script="delete window.RTCPeerConnection;")
        talk(page)
        assert "WebSocket is used instead" in page.inner_text("#michi-line")
        say(
            page,
            np.concatenate([np.zeros(8000, np.float32), speech(question["text"], question["voice"])]),
            16_000,
        )
        wait_words(page, "user")
        wait_words(page, "own")
        assert page.problems == []


def test_a_cloned_voice_is_nearer_to_its_reference(address, tmp_path: Path) -> None:
    """Upload, clone, keep, talk: the answer sounds more like the reference than the default voice's does."""
    from michiai.evaluation.referees import at_rate, embed_speaker, segments

    reference = ROOT / "examples" / "voice_ada.wav"
    question = QUESTIONS["question"]
    audio = speech(question["text"], question["voice"])
    audio = np.concatenate([audio, np.zeros(int(3.5 * 16_000), np.float32), audio])  # two answers tell a voice better
    answers = []
    with browser.browser() as chromium:
        page = open_page(chromium, address, mouth=True)
        for cloned in (False, True):
            if cloned:
                page.get_by_role("tab", name="Clone a voice").click()
                panel = page.get_by_role("tabpanel")
                panel.get_by_label("Upload file").first.click()
                panel.locator("input[type=file]").first.set_input_files(str(reference))
                page.get_by_label("This is my own voice").check()
                page.get_by_role("button", name="Clone", exact=True).click()
                page.wait_for_function(
                    "[...document.querySelectorAll('textarea')].some(t => t.value.includes('s of speech'))",
                    timeout=60_000,
                )
                page.get_by_role("button", name="Use this voice in the other tabs").click()
                page.wait_for_function(
                    "document.getElementById('michi-voice').value === 'my voice'", timeout=20_000
                )
                page.get_by_role("tab", name="Live").click()
            talk(page)
            page.wait_for_timeout(500)
            say(page, audio, 16_000)
            wait_words(page, "own")
            page.wait_for_timeout(1000 * len(audio) / 16_000)
            wait_silent(page)
            answers.append(at_rate(recorded(page)[0], browser.RATE))
            page.click("#michi-talk")
            wait_state(page, "idle")
    target = embed_speaker(soundfile.read(reference, dtype="float32")[0])
    parts = [
        np.concatenate([a[int(s * 16_000) : int(e * 16_000)] for s, e in segments(a, 16_000)])
        for a in answers
    ]
    default, clone = (float(embed_speaker(part) @ target) for part in parts)
    print(f"similarity to the reference: default voice {default:.3f}, cloned voice {clone:.3f}")
    assert clone > default
