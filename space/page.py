"""The page: tabs around the live client."""

import base64
from html import escape
from pathlib import Path

import gradio as gr

from .engine import EXAMPLES, Engine
from .offline import Offline

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
ends; uploads and answers are deleted after {minutes:g} minutes; nothing is sent to anybody else. It is a very
small model of a small world: greetings, sums, days and months, capitals, opposites, and what you tell it."""
KEEP = """(file, name) => { if (file) { window.michiai.keepVoice(name || "my voice", file); } }"""


def theme() -> gr.themes.Base:
    """System fonts; labels dark enough to read."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="stone",
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
    offline = Offline(engine)
    names = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in engine.voices)
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
            gr.HTML((HERE / "live.html").read_text(encoding="utf-8").replace("{voices}", names))
        with gr.Tab("Turn by turn"):
            voice_file = turn_tab(offline)
        with gr.Tab("Clone a voice"):
            clone_tab(offline, voice_file)
        with gr.Tab("API"):
            gr.Markdown((HERE / "api.md").read_text(encoding="utf-8"))
        gr.Markdown(PRIVACY.format(minutes=upload_seconds / 60))
        page.load(None, None, None, js=client)
    return page


def turn_tab(offline: Offline) -> gr.File:
    """Upload or record, get the answer. Returns the voice's input, which the clone tab fills."""
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
            voice = gr.File(
                label="Voice file (optional, from the Clone tab)",
                file_types=[".safetensors"],
                type="filepath",
                height=120,
            )
            with gr.Row():
                ask = gr.Button("Answer", variant="primary")
                listen = gr.Button("Only write down what it hears")
        with gr.Column():
            answer = gr.Audio(label="The answer", autoplay=True, interactive=False)
            both = gr.Audio(label="Both at once: you left, MichiAI right", interactive=False)
            table = gr.HTML(label="Transcript")
            rows = gr.JSON(visible=False)
            picture = gr.Image(label="Both voices and the turn gate", interactive=False, type="pil")
            heard = gr.Textbox(label="Heard", interactive=False)
            words = gr.JSON(visible=False)
    ask.click(
        offline.converse,
        [audio, voice, instructions, context],
        [answer, both, rows, picture],
        api_name="converse",
        concurrency_id="model",
        concurrency_limit=1,
    ).success(as_table, [rows], [table], api_name=False)
    listen.click(
        offline.transcribe,
        [audio],
        [heard, words],
        api_name="transcribe",
        concurrency_id="model",
        concurrency_limit=1,
    )
    samples = [[str(EXAMPLES / name), "", context] for name, context in questions()]
    gr.Examples(
        samples,
        [audio, instructions, context],
        label="Questions, spoken by a synthesiser",
        cache_examples=False,
    )
    return voice


def clone_tab(offline: Offline, voice_file: gr.File) -> None:
    """Upload or record a voice, hear it, keep it; or read a text in a kept one."""
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
                label="The voice: save it, upload it again whenever you like",
                file_types=[".safetensors"],
                interactive=False,
                height=120,
            )
            said = gr.Audio(label="The sentence in this voice", autoplay=True, interactive=False)
            remarks = gr.Textbox(label="About the recording", interactive=False)
            name = gr.Textbox(label="Name of the voice", value="my voice", max_length=40)
            keep = gr.Button("Use this voice in the other tabs")
            data = gr.Textbox(visible=False)
    clone.click(
        offline.clone,
        [audio, consent, text],
        [file, said, remarks],
        api_name="clone",
        concurrency_id="model",
        concurrency_limit=1,
    )
    keep.click(as_text, [file], [data, voice_file], api_name=False).then(
        None, [data, name], None, js=KEEP, api_name=False
    )
    gr.Examples(
        [[str(path)] for path in sorted(EXAMPLES.glob("voice_*.wav"))],
        [audio],
        label="Voices, made by a synthesiser",
        cache_examples=False,
    )
    with gr.Accordion("Read a text aloud", open=False):
        with gr.Row():
            words = gr.Textbox(label="Text", value="the red train is late.", max_length=400)
            voice = gr.File(
                label="Voice file (optional)", file_types=[".safetensors"], type="filepath", height=120
            )
        read = gr.Button("Read")
        speech = gr.Audio(label="Speech", autoplay=True, interactive=False)
        read.click(
            offline.speak,
            [words, voice],
            speech,
            api_name="speak",
            concurrency_id="model",
            concurrency_limit=1,
        )
        gr.Examples(
            [["two plus three is five."], ["the capital of france is paris."], ["that is funny <laugh>"]],
            [words],
            label="Texts",
            cache_examples=False,
        )


def as_table(rows: list[dict] | None) -> str:
    """The transcript for reading; Gradio's own table is not for screen readers."""
    cells = "".join(
        f'<tr class="{"user" if row["who"] == "you" else "own"}">'
        f"<td>{row['start']:.1f}–{row['end']:.1f} s</td><td>{escape(row['who'])}</td>"
        f"<td>{escape(row['text'])}</td></tr>"
        for row in rows or []
    )
    head = "<thead><tr><th>when</th><th>who</th><th>what</th></tr></thead>"
    return f'<table class="transcript"><caption>Transcript</caption>{head}<tbody>{cells}</tbody></table>'


def as_text(path: str | None) -> tuple[str, str]:
    """A voice file in base64, for the page to keep, and its path for the other tab."""
    if not path:
        raise gr.Error("There is no voice yet: clone one first.", print_exception=False)
    return base64.b64encode(Path(path).read_bytes()).decode(), path


def questions() -> list[tuple[str, str]]:
    """(file, context) of the bundled questions: the context stands in a text file of the same name."""
    found = []
    for path in sorted(EXAMPLES.glob("question*.wav")):
        note = path.with_suffix(".txt")
        found.append((path.name, note.read_text(encoding="utf-8").strip() if note.exists() else ""))
    return found
