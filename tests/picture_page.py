"""A picture of the live tab, of a conversation that really takes place in Chromium: python tests/picture_page.py [PNG]

The bundled examples are spoken into its microphone, and what the last of them asks about is told in writing before.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
WIDTH, EDGE = 1060, 16  # CSS pixels


def main() -> None:
    import soundfile
    from test_app_browser import wait_silent

    from browser import browser, open_page, say, talk, wait_state
    from space_server import running

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("png", nargs="?", type=Path, default=ROOT / "examples" / "page.png", help="default: %(default)s")
    args = parser.parse_args()
    names = "question_hello", "question", "question_meeting"
    examples = [soundfile.read(ROOT / "examples" / f"{name}.wav", dtype="float32") for name in names]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "log.txt") as address, browser() as chromium:
        page = open_page(chromium, address, mouth=True, viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.25)
        talk(page)
        time.sleep(1)
        for audio, rate in examples[:-1]:
            say(page, audio, rate)
            time.sleep(len(audio) / rate + 1)
            wait_silent(page)
        page.fill("#michi-tell-text", (ROOT / "examples" / "question_meeting.txt").read_text().strip())
        page.click("#michi-tell-send")
        say(page, *examples[-1])
        page.wait_for_function("document.getElementById('michi-state').textContent.startsWith('It speaks')")
        time.sleep(0.7)
        box = page.locator("#michi").bounding_box()
        clip = {"x": box["x"] - EDGE, "y": box["y"] - EDGE, "width": box["width"] + 2 * EDGE, "height": box["height"] + 2 * EDGE}
        page.screenshot(path=args.png, clip=clip)
        page.click("#michi-talk")
        wait_state(page, "idle")
    print(f"{args.png}: {os.path.getsize(args.png) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
