"""The text LLM inside, unchanged: python examples/text_only.py [MODEL]"""

import sys
from pathlib import Path

from transformers import AutoModel, AutoProcessor

repo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).resolve().parent.parent)
model = AutoModel.from_pretrained(repo, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)

# a dialogue as text: <user> what the user says <turn> what MichiAI answers <done>
prompt = "<context> the train to paris leaves at nine . <user> when does the train to paris leave <turn>"
inputs = processor.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
print(processor.tokenizer.decode(ids[0]))
