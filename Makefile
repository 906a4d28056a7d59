# make talk    hold a conversation with a bundled question: writes and plays out/answer.wav, draws out/answer.png
# make app     the Space: talk to it in the browser, at http://127.0.0.1:7860
# make serve   converse over a WebSocket, as clients of OpenAI's Realtime API do, at ws://127.0.0.1:8000/v1/realtime
# make test    the tests
# make count   parameters of the release model, part by part
# make clean   remove what these made
# Each sets up .venv by itself. PY=... uses another Python that has the package installed, and sets up nothing.

# models this small are fastest on one thread, above all beside other work
export OMP_NUM_THREADS ?= 1

PY ?= .venv/bin/python
SETUP = $(if $(filter .venv/bin/python,$(PY)),bash scripts/setup.sh $(1),true)

.PHONY: talk app serve test count clean

talk:
	@$(call SETUP,core)
	@mkdir -p out
	$(PY) -m michiai converse examples/question.wav out/answer.wav --plot
	@bash scripts/play.sh out/answer.wav

app:
	@$(call SETUP,app)
	$(PY) app.py

serve:
	@$(call SETUP,app)
	$(PY) -m michiai serve

test:
	@$(call SETUP,full)
	$(PY) -m pytest -rs

count:
	@$(call SETUP,core)
	$(PY) scripts/count.py configs/530m/config.json

clean:
	rm -rf .venv out build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
