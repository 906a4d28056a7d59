"""Ask a recorded question, hear the answer: python examples/converse_file.py [MODEL] [QUESTION.wav]"""

import sys
from pathlib import Path

import soundfile
import torch
from transformers import AutoModel

here = Path(__file__).resolve().parent
repo = sys.argv[1] if len(sys.argv) > 1 else str(here.parent)
question = sys.argv[2] if len(sys.argv) > 2 else str(here / "question.wav")

model = AutoModel.from_pretrained(repo, trust_remote_code=True)
reply = model.converse(question)

print("you:  ", reply.user_text)
print("michi:", reply.text)
stereo = torch.stack([reply.user_audio, reply.audio], dim=1)  # you left, MichiAI right
soundfile.write("answer.wav", stereo.numpy(), reply.sampling_rate)
print(f"{len(reply.frames)} frames of conversation written to answer.wav")
