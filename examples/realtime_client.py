"""A question to a server (python -m michiai serve), asked with OpenAI's own client: python examples/realtime_client.py [URL]"""

import asyncio
import base64
import os
import sys
from pathlib import Path

import numpy as np
import soundfile
from openai import AsyncOpenAI

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8000/v1"
question, rate = soundfile.read(Path(__file__).with_name("question.wav"), dtype="<i2")


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ.get("MICHIAI_API_KEY", "none"), websocket_base_url=URL)
    async with client.realtime.connect(model="michiai") as connection:
        microphone = {"input": {"format": {"type": "audio/pcm", "rate": rate}}}
        await connection.session.update(session={"type": "realtime", "instructions": "Your name is Nora.", "audio": microphone})
        await connection.input_audio_buffer.append(audio=base64.b64encode(question.tobytes()).decode())
        answer = b""
        async for event in connection:  # silence goes on to pass, so the answer comes
            if event.type == "error":
                raise SystemExit(event.error.message)
            if event.type == "conversation.item.input_audio_transcription.completed":
                print("heard:", event.transcript)
            elif event.type == "response.output_audio.delta":
                answer += base64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.done":
                print("says:", event.transcript)
            elif event.type == "response.done":
                break
    soundfile.write("realtime.wav", np.frombuffer(answer, "<i2"), 24_000)
    print(f"realtime.wav: {len(answer) / 48_000:.1f} s")


asyncio.run(main())
