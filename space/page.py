"""The page: tabs around the live client."""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from .engine import EXAMPLES, Engine
from .offline import Offline, readable
from .settings import Settings

HERE = Path(__file__).parent
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
HEAD = """<header class="masthead">
<svg viewBox="0 0 54 34" aria-hidden="true"><rect class="a" x="0" y="4" width="34" height="11" rx="5.5"/>
<rect class="b" x="20" y="19" width="34" height="11" rx="5.5"/>
<rect class="c" x="20" y="4" width="14" height="26" rx="5.5"/></svg>
<h1>MichiAI</h1><p>It listens while it talks. Interrupt it.</p></header>"""
CONSENT = (
    "This is my own voice, or its owner agreed to being cloned, and I shall not pass the result off as them."
)
PRIVACY = """Nothing that you say is kept: a live conversation is only in memory and is forgotten when it
ends; uploads and answers are deleted after {minutes:g} minutes; nothing is sent to anybody else. The tabs beside
Live serve one visitor at a time: if others are before you, you see how many, and it begins by itself. It is a very
small model of a small world: greetings, sums, days and months, capitals, opposites, and what you tell it."""
QUESTIONS = {  # the bundled ones in words; a text file beside one holds what it should know
    "question_meeting": "When is the meeting with Nora?",
    "question": "What is three plus four? What comes after Monday?",
    "question_hello": "Hello! How are you?",
}
BREATH = 0.1  # seconds before its first word with which an answer begins
QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
# the page's own list of voices is the live tab's (live.js); Gradio's lists show it, and a kept voice becomes a file when it is needed
KEEP = """(data, name) => {
    const voices = window.michiai.keepVoice(name.trim() || "my voice", data);
    return [voices, null, voices, null];
}"""
ANSWER = """async (audio, file, instructions, context, name) => {
    const [voice, bundled] = await window.michiai.voiceOf(file, name);
    return [audio, voice, instructions, context, bundled];
}"""
READ = "async (words, file, name) => [words, ...(await window.michiai.voiceOf(file, name))]"


def theme() -> gr.themes.Base:
    """System fonts; the greys of style.css; labels dark enough to read."""
    greys = "#faf8f4 #f3f0ea #e3dfd6 #cdc8d4 #aaa4b8 #7c7689 #453f54 #34303f #1d1a25 #1d1a25 #14121a".split()
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue=gr.themes.Color(*greys, name="ink"),
        font=FONT,
        font_mono=["ui-monospace", "monospace"],
        radius_size="lg",
    ).set(
        body_background_fill="#faf8f4",
        body_background_fill_dark="#14121a",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1d1a25",
        block_label_text_color="#1d1a26",
        block_label_text_color_dark="#f1eef7",
        block_title_text_color="#1d1a26",
        block_title_text_color_dark="#f1eef7",
        block_info_text_color="#5d5869",
        block_info_text_color_dark="#aaa4b8",
        body_text_color_subdued="#5d5869",
        body_text_color_subdued_dark="#aaa4b8",
        input_placeholder_color="#6b6675",
        input_placeholder_color_dark="#aaa4b8",
        button_primary_background_fill="#1d1a26",
        button_primary_background_fill_dark="#f1eef7",
        button_primary_background_fill_hover="#3c45c8",
        button_primary_background_fill_hover_dark="#a3adff",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#14121a",
    )


def build(engine: Engine, upload_seconds: int) -> gr.Blocks:
    """All tabs."""
    gr.set_static_paths([EXAMPLES])  # served from where they are: copies would be deleted as uploads are, while they are in use
    offline = Offline(engine)
    names = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in engine.voices)
    limits = Settings.from_environment()
    client = (HERE / "live.js").read_text(encoding="utf-8")
    with gr.Blocks(
        title="MichiAI",
        theme=theme(),
        css=(HERE / "style.css").read_text(encoding="utf-8"),
        head=f"<style>{(HERE / 'frame.css').read_text(encoding='utf-8')}</style>",
        analytics_enabled=False,
        delete_cache=(min(60, upload_seconds), upload_seconds),
    ) as page:
        gr.HTML(HEAD)
        with gr.Tab("Live"):
            gr.HTML(
                (HERE / "live.html")
                .read_text(encoding="utf-8")
                .format(
                    voices=names,
                    minutes=f"{limits.max_seconds / 60:.2g}",
                    places=limits.max_conversations,
                    question=f"gradio_api/file={EXAMPLES / 'question.wav'}",
                )
            )
        with gr.Tab("Turn by turn"):
            voice = turn_tab(offline)
        with gr.Tab("Clone a voice"):
            clone_tab(offline, voice, upload_seconds / 60)
        with gr.Tab("API"):
            gr.Markdown((HERE / "api.md").read_text(encoding="utf-8"))
        gr.Markdown(PRIVACY.format(minutes=upload_seconds / 60))
        page.load(None, None, None, js=client)
    return page


def voice_choice(offline: Offline) -> tuple[gr.Dropdown, gr.File]:
    """A bundled or kept voice by its name, or a file, which counts until a name is chosen."""
    name = gr.Dropdown([("MichiAI's own", ""), *offline.engine.voices], value="", label="Voice")
    file = gr.File(label="Instead: a voice file", file_types=[".safetensors"], type="filepath", height=140)
    name.input(None, None, file, js="() => null", api_name=False)
    file.upload(offline.check_voice, file, api_name=False).failure(None, None, file, js="() => null", api_name=False)
    return name, file


def turn_tab(offline: Offline) -> tuple[gr.Dropdown, gr.File]:
    """Upload or record, get the answer. Returns the voice's inputs, which the clone tab fills."""
    top = gr.Column()
    with gr.Row():
        with gr.Column():
            audio = gr.Audio(
                label="What you say, up to 60 s", type="filepath", sources=["microphone", "upload"]
            )
            context = gr.Textbox(
                label="What it should know (optional)",
                placeholder="the meeting with nora is at nine.",
                max_length=4000,
            )
            instructions = gr.Textbox(
                label="Instructions (optional)", placeholder="your name is nora.", max_length=4000
            )
            name, voice = voice_choice(offline)
            with gr.Row():
                ask = gr.Button("Answer", variant="primary")
                listen = gr.Button("Only write down what it hears")
        with gr.Column():
            answer = gr.Audio(label="The answer", autoplay=True, interactive=False)
            whole = gr.Audio(visible=False, interactive=False)
            both = gr.Audio(label="Both at once: you left, MichiAI right", interactive=False)
            table = gr.HTML(label="Transcript")
            rows = gr.JSON(visible=False)
            picture = gr.Image(label="Both voices and the turn gate", show_label=False, interactive=False, type="pil")
            heard = gr.Textbox(label="Heard", interactive=False)
            words = gr.JSON(visible=False)
    with top:
        examples = gr.Examples(
            [[str(EXAMPLES / f"{file}.wav"), "", known(file)] for file in QUESTIONS],
            [audio, instructions, context],
            label="Ask one of these, spoken by a synthesiser",
            example_labels=list(QUESTIONS.values()),
            cache_examples=False,
        )

    def answer_at(event: Callable, api_name: str | bool) -> None:
        event(
            offline.converse,
            [audio, voice, instructions, context, name],
            [whole, both, rows, picture],
            api_name=api_name,
            js=ANSWER,
            show_progress_on=[answer, both, picture],
            **QUEUE,
        ).success(as_shown, [whole, rows], [answer, table], api_name=False)

    answer_at(ask.click, "converse")
    answer_at(examples.load_input_event.success, False)
    listen.click(offline.transcribe, [audio], [heard, words], api_name="transcribe", **QUEUE)
    return name, voice


def clone_tab(offline: Offline, turn_voice: tuple[gr.Dropdown, gr.File], minutes: float) -> None:
    """Upload or record a voice, hear it, keep it; or read a text in a kept one."""
    top = gr.Column()
    with gr.Row():
        with gr.Column():
            audio = gr.Audio(
                label="3 to 30 s of one person speaking", type="filepath", sources=["microphone", "upload"]
            )
            consent = gr.Checkbox(label=CONSENT)
            text = gr.Textbox(
                label="A sentence to hear in this voice", value="hello, this is my voice now.", max_length=400
            )
            clone = gr.Button("Clone", variant="primary")
        with gr.Column():
            file = gr.File(
                label=f"The voice: save it within {minutes:.2g} minutes",
                file_types=[".safetensors"],
                interactive=False,
                height=140,
            )
            said = gr.Audio(label="The sentence in this voice", autoplay=True, interactive=False)
            remarks = gr.Textbox(label="About the recording", interactive=False)
            name = gr.Textbox(label="Name of the voice", value="my voice", max_length=40)
            keep = gr.Button("Use this voice in the other tabs")
            data = gr.Textbox(visible=False)
    with top:
        voices = sorted(EXAMPLES.glob("voice_*.wav"))
        gr.Examples(
            [[str(path)] for path in voices],
            [audio],
            label="Voices to clone, made by a synthesiser",
            example_labels=[path.stem.removeprefix("voice_") for path in voices],
            cache_examples=False,
        )
    with gr.Accordion("Read a text aloud", open=False):
        with gr.Row():
            with gr.Column():
                words = gr.Textbox(label="Text", value="the red train is late.", max_length=400)
            with gr.Column():
                read_name, read_file = voice_choice(offline)
        read = gr.Button("Read")
        speech = gr.Audio(label="Speech", autoplay=True, interactive=False)
        read.click(offline.speak, [words, read_file, read_name], speech, api_name="speak", js=READ, **QUEUE)
        gr.Examples(
            [["two plus three is five."], ["the capital of france is paris."], ["that is funny <laugh>"]],
            [words],
            label="Texts",
            cache_examples=False,
        )
    clone.click(lambda: gr.Button(interactive=False), None, keep, api_name=False, queue=False)  # until there is what it keeps
    made = clone.click(offline.clone, [audio, consent, text], [file, said, remarks], api_name="clone", **QUEUE)
    made.success(as_text, [file], [data], api_name=False).then(lambda: gr.Button(interactive=True), None, keep, api_name=False)
    made.failure(lambda: gr.Button(interactive=True), None, keep, api_name=False)
    keep.click(readable(check_kept), [data, name], api_name=False).success(
        None, [data, name], [*turn_voice, read_name, read_file], js=KEEP, api_name=False
    )


def as_shown(answer: tuple[int, np.ndarray], rows: list[dict]) -> tuple[tuple, str]:
    """A reply as the page shows it: the answer from its first word on; programs get the silence before it, too."""
    rate, sound = answer
    first = next((row["start"] for row in rows if row["who"] == "MichiAI"), 0)
    return (rate, sound[max(0, round((first - BREATH) * rate)) :]), as_table(rows)


def as_table(rows: list[dict] | None) -> str:
    """The transcript for reading; Gradio's own table is not for screen readers."""
    cells = "".join(
        f'<tr class="{"user" if row["who"] == "you" else "own"}">'
        f"<td>{row['start']:.1f}–{row['end']:.1f} s</td><td>{escape(row['who'])}</td>"
        f'<td style="overflow-wrap: anywhere">{escape(row["text"])}</td></tr>'
        for row in rows or []
    )
    cells = cells or '<tr><td colspan="3">Nothing was heard, and nothing was said.</td></tr>'
    head = "<thead><tr><th>when</th><th>who</th><th>what</th></tr></thead>"
    return f'<table class="transcript"><caption>Transcript</caption>{head}<tbody>{cells}</tbody></table>'


def as_text(path: str) -> str:
    """A voice file in base64, for the page to keep: the file is soon deleted."""
    return base64.b64encode(Path(path).read_bytes()).decode()


def check_kept(data: str | None, name: str) -> None:
    """What the visitor is told before the page keeps a voice in base64."""
    if not data:
        raise ValueError("there is no voice yet: clone one first")
    gr.Info(f"“{escape(name.strip()) or 'my voice'}” is chosen in the Live tab, and where a text or an answer is spoken.")


def known(question: str) -> str:
    """What a bundled question asks about, if it stands in a text file of the same name."""
    note = EXAMPLES / f"{question}.txt"
    return note.read_text(encoding="utf-8").strip() if note.exists() else ""
