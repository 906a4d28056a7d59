"""Text to speech in a cloned voice: python examples/speak.py [MODEL] [REFERENCE.wav]"""

import sys
from pathlib import Path

import soundfile
from transformers import AutoModel

here = Path(__file__).resolve().parent
model = AutoModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else str(here.parent), trust_remote_code=True)
voice = model.voice(sys.argv[2]) if len(sys.argv) > 2 else None  # 1 to 30 s of one person; None: the checkpoint's own
if voice is not None:
    voice.save("voice.safetensors")  # reusable: Voice.load("voice.safetensors")

speech = model.speak("the red train leaves at nine", voice=voice, seed=0)
soundfile.write("speech.wav", speech.numpy(), model.config.sampling_rate)
print(f"{len(speech) / model.config.sampling_rate:.2f} s written to speech.wav")
