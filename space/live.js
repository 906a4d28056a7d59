/* The live tab: microphone, control WebSocket, sound over WebRTC or a second WebSocket, and what is shown of it. */
async () => {
  const $ = (name) => document.getElementById("michi-" + name);
  if (window.michiai) return;
  while (!$("talk")) await new Promise((done) => setTimeout(done, 100)); // Gradio may be slower than this

  const CONNECT_MS = 8000;
  const STALLED_MS = 2000, LOST_MS = 10000; // without any word from the model
  const DOUBLE_CLICK_MS = 400;
  const LARGEST_VOICE = 200000; // bytes
  const SHOWN_SECONDS = 10;
  const LINE_RATE = 48000;
  const url = (path, scheme) => {
    const found = new URL(path, document.baseURI);
    if (scheme) found.protocol = found.protocol.replace("http", scheme);
    return found.href;
  };
  const kept = new Map(); // voices of this page, name -> file in base64; they are nowhere else
  let call = null; // everything that belongs to the present conversation

  // ------------------------------------------------------------ words on the page

  const WORDS = { idle: "Talk", asking: "…", waiting: "Waiting", connecting: "Connecting", talking: "Stop" };
  function show(state, words) {
    $("talk").closest(".michi").dataset.state = state;
    $("talk-word").textContent = WORDS[state];
    $("talk").setAttribute("aria-pressed", String(state !== "idle"));
    for (const name of ["mute", "tell-text", "tell-send"]) $(name).disabled = state !== "talking";
    $("mute").hidden = !call || call.recorded;
    $("play").hidden = !$("mute").hidden;
    $("play").textContent = call ? "Play it again" : "Play it a question";
    if (state === "idle") for (const side of ["user", "own"]) level(side, 0);
    showBar();
    if (words) put("state", words);
    else describe();
  }
  /* What a conversation does; of several things, that which matters most. */
  function describe(change) {
    Object.assign(call, change);
    if (!talking()) return;
    put("state",
      call.stalled ? "The connection is interrupted…"
      : call.ending ? "The conversation ends in a few seconds, so that others may talk."
      : call.speaking ? `It speaks. ${call.muted ? "Your microphone is muted." : call.recorded ? "Play it again to interrupt." : "Interrupt if you like."}`
      : call.muted ? "Your microphone is muted."
      : call.recorded ? "It listens. A recording asks." : "It listens. Speak.");
  }
  /* How it is connected, unless something is wrong at the moment. */
  function line(change) {
    Object.assign(call, change);
    put("line", call.refused || call.slow || call.how || "");
  }
  const talking = () => $("talk").closest(".michi").dataset.state === "talking";
  const put = (name, text) => { if ($(name).textContent !== text) $(name).textContent = text; };
  const level = (side, value) => $("level-" + side).style.setProperty("--level", value.toFixed(3));

  const MICROPHONE = {
    NotAllowedError: "The microphone is blocked. Allow it in the browser's address bar, or play it a question.",
    NotFoundError: "No microphone was found. Connect one, or play it a question.",
    NotReadableError: "Another program holds the microphone. Close it, then press Talk again.",
  };

  // ------------------------------------------------------------ transcript

  const score = {
    rows: [], last: {},
    clear() { this.rows = []; this.last = {}; $("score").replaceChildren(); },
    note(text) { const p = document.createElement("p"); p.className = "note"; p.textContent = text; this.put(p); },
    put(element) {
      const box = $("score");
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
      box.append(element);
      if (atEnd) box.scrollTop = box.scrollHeight;
    },
    /* A cell in the row of the other side, if that one still speaks; else a row of its own. */
    open(who, now) {
      const row = this.rows.at(-1);
      const other = row && row.cells[who === "user" ? "own" : "user"];
      let target = row;
      if (!row || row.cells[who] || !other || !this.going(other, now)) {
        target = { cells: {}, element: document.createElement("div") };
        target.element.className = "utterance";
        this.rows.push(target);
        this.put(target.element);
      } else target.element.classList.add("overlap");
      const cell = { who, start: now, at: now, element: document.createElement("p"), text: "" };
      cell.element.className = who;
      cell.element.innerHTML = `<span class="sr">${who === "user" ? "You" : "MichiAI"}: </span><span class="words"></span><time>${now.toFixed(1)} s</time>`;
      target.cells[who] = this.last[who] = cell;
      target.element.append(cell.element);
      return cell;
    },
    going: (cell, now) => (cell.who === "own" ? cell.speaking : now - cell.at < 1.2 && now - call.loudAt < 0.3),
    say(who, piece, now, fresh) {
      let cell = this.last[who];
      const row = this.rows.at(-1);
      if (fresh || !cell || (who === "user" && (now - cell.at > 1.2 || (row.cells.user !== cell && !this.going(cell, now))))) cell = this.open(who, now);
      cell.at = now;
      cell.text += piece.replace(/<(\w+)>/g, "($1)");
      const box = $("score");
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
      cell.element.querySelector(".words").textContent = cell.text.trim();
      if (atEnd) box.scrollTop = box.scrollHeight;
    },
  };

  // ------------------------------------------------------------ turn gate

  const gate = [];
  function drawGate() {
    const canvas = $("gate"), draw = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const [w, h] = [canvas.width, canvas.height], n = Math.round(SHOWN_SECONDS * 12.5), x = (i) => (i / n) * w;
    const first = Math.max(0, gate.length - n), shown = gate.slice(first), shift = n - shown.length;
    draw.clearRect(0, 0, w, h);
    shown.forEach((f, i) => {
      if (f.speaking) { draw.fillStyle = style.getPropertyValue("--own-soft"); draw.fillRect(x(i + shift), 0, w / n + 1, h); }
      draw.fillStyle = style.getPropertyValue("--user");
      const tall = Math.min(1, f.level * 4) * h * 0.45;
      draw.globalAlpha = 0.55; draw.fillRect(x(i + shift), h - tall, w / n - 1, tall); draw.globalAlpha = 1;
    });
    draw.strokeStyle = style.getPropertyValue("--ink"); draw.lineWidth = 3; draw.beginPath();
    shown.forEach((f, i) => draw[i ? "lineTo" : "moveTo"](x(i + shift + 0.5), h - 6 - f.turn * (h - 12)));
    draw.stroke();
  }

  // ------------------------------------------------------------ sound

  function meter(node, side) {
    const analyser = call.context.createAnalyser(), data = new Float32Array((analyser.fftSize = 1024));
    node.connect(analyser);
    const mine = call;
    (function look() {
      if (call !== mine) return;
      analyser.getFloatTimeDomainData(data);
      const rms = Math.sqrt(data.reduce((sum, v) => sum + v * v, 0) / data.length);
      level(side, rms > 0 ? Math.max(0, Math.min(1, 1 + Math.log10(rms + 1e-6) / 2.4)) : 0);
      requestAnimationFrame(look);
    })();
  }

  /* A recorded question in place of a microphone; the visitor hears it too. */
  async function recording(mine) {
    const context = mine.context, out = context.createMediaStreamDestination();
    const file = await (await fetch(url($("play").dataset.file))).arrayBuffer();
    const buffer = await context.decodeAudioData(file);
    const quiet = new ConstantSourceNode(context, { offset: 0 }); // Chromium sends nothing at all between two sounds
    quiet.connect(out);
    quiet.start();
    let source;
    mine.play = () => {
      if (source) source.stop();
      source = new AudioBufferSourceNode(context, { buffer });
      for (const end of [out, context.destination]) source.connect(end);
      source.start();
    };
    return out.stream;
  }

  async function openWebRTC(mine) {
    if (!window.RTCPeerConnection) throw new Error("this browser has no WebRTC");
    const pc = (mine.pc = new RTCPeerConnection(await (await fetch(url("live/ice"))).json()));
    mine.mic.getTracks().forEach((track) => pc.addTrack(track, mine.mic));
    pc.createDataChannel("text"); // fastrtc starts when it is open
    pc.ontrack = (event) => {
      const stream = event.streams[0] || new MediaStream([event.track]);
      $("audio").srcObject = stream;
      meter(mine.context.createMediaStreamSource(stream), "own");
    };
    await pc.setLocalDescription(await pc.createOffer());
    await new Promise((done) => {
      setTimeout(done, 1500);
      pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done();
    });
    const answer = await (await fetch(url("webrtc/offer"), {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sdp: pc.localDescription.sdp, type: "offer", webrtc_id: mine.id }),
    })).json();
    if (!answer.sdp) throw new Error((answer.meta && answer.meta.error) || "refused");
    await pc.setRemoteDescription(answer);
    await new Promise((done, fail) => {
      const late = setTimeout(() => fail(new Error("it took too long")), CONNECT_MS);
      pc.onconnectionstatechange = () => {
        if (pc.connectionState === "connected") { clearTimeout(late); done(); }
        if (pc.connectionState === "failed") { clearTimeout(late); mine.connected ? stop("The connection was lost.") : fail(new Error("it failed")); }
      };
    });
    mine.connected = true;
  }

  const toMuLaw = (x) => { // ITU-T G.711
    const s = Math.max(-32635, Math.min(32635, Math.round(x * 32767))), sign = s < 0 ? 0x80 : 0, m = Math.abs(s) + 132;
    const e = Math.max(0, Math.floor(Math.log2(m)) - 7);
    return ~(sign | (e << 4) | ((m >> (e + 3)) & 15)) & 255;
  };
  const fromMuLaw = (byte) => {
    const b = ~byte & 255, size = ((((b & 15) << 3) + 132) << ((b >> 4) & 7)) - 132;
    return (b & 128 ? -size : size) / 32768;
  };
  const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
    constructor() { super(); this.kept = new Float32Array(3840); this.n = 0; }
    process([[channel]]) { for (const v of channel || []) { this.kept[this.n++] = v;
      if (this.n === 3840) { this.port.postMessage(this.kept.slice()); this.n = 0; } } return true; } });`;

  async function openWebSocket(mine) {
    const context = mine.context, socket = (mine.sound = new WebSocket(url("websocket/offer", "ws")));
    await new Promise((done, fail) => { socket.onopen = done; socket.onerror = () => fail(new Error("no WebSocket either")); });
    const out = context.createGain();
    out.connect(context.destination);
    meter(out, "own");
    let next = 0;
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.event !== "media") return;
      const bytes = Uint8Array.from(atob(message.media.payload), (c) => c.charCodeAt(0));
      const buffer = context.createBuffer(1, bytes.length, mine.rate);
      buffer.copyToChannel(Float32Array.from(bytes, fromMuLaw), 0);
      if (next - context.currentTime > 0.5) return; // never let it queue up
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(out);
      next = Math.max(next, context.currentTime + 0.1);
      source.start(next);
      next += buffer.duration;
    };
    socket.send(JSON.stringify({ event: "start", websocket_id: mine.id }));
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap");
    mine.source.connect(tap);
    tap.port.onmessage = ({ data }) => {
      if (socket.readyState !== 1) return;
      socket.send(JSON.stringify({ event: "media", media: { payload: btoa(String.fromCharCode(...Uint8Array.from(data, toMuLaw))) } }));
    };
    socket.onclose = () => call === mine && stop("The connection was lost.");
    mine.connected = true;
  }

  async function openSound(mine) {
    show("connecting", "Connecting…");
    try {
      await openWebRTC(mine);
      if (call === mine) line({ how: "Connected by WebRTC." });
    } catch (error) {
      if (mine.pc) mine.pc.close(); // of one that was stopped, too: it may have come after that
      mine.pc = null;
      if (call !== mine) return;
      line({ how: `WebRTC could not connect (${error.message}). The WebSocket is used instead: it sounds rougher and comes later.` });
      try { await openWebSocket(mine); } catch (again) { return call === mine && stop(`No connection: ${again.message}.`); }
    }
    if (call !== mine) return;
    mine.frameAt = performance.now();
    show("talking");
    if (mine.recorded) mine.play();
    mine.clock = setInterval(() => figures(mine), 1000);
  }

  // ------------------------------------------------------------ figures

  async function figures(mine) {
    const silent = performance.now() - mine.frameAt;
    if (silent > LOST_MS) return stop("The connection was lost. Press Talk for a new conversation.");
    if (silent > STALLED_MS) describe({ stalled: true });
    const left = Math.max(0, Math.round((mine.until - performance.now()) / 1000));
    $("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")} left`;
    if (mine.control.readyState === 1) mine.control.send(JSON.stringify({ type: "ping", at: performance.now() }));
    if (!mine.pc) return;
    for (const stat of (await mine.pc.getStats()).values()) {
      if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) mine.trip = stat.currentRoundTripTime * 1000;
      if (stat.type === "inbound-rtp" && stat.jitterBufferEmittedCount) {
        const before = mine.jitter || [0, 0];
        mine.jitter = [stat.jitterBufferDelay, stat.jitterBufferEmittedCount];
        const count = mine.jitter[1] - before[1];
        if (count > 0) mine.buffered = ((mine.jitter[0] - before[0]) / count) * 1000;
      }
    }
  }

  // ------------------------------------------------------------ messages

  const told = {
    waiting(m) {
      const words = m.ahead ? `${m.ahead} in front of you.` : "You are next.";
      show("waiting", `All places are taken. ${words} It begins by itself.`);
    },
    ready(m) { Object.assign(call, { id: m.id, rate: m.rate, until: performance.now() + m.seconds * 1000 }); openSound(call); },
    frame(m) {
      const now = m.index * 0.08, own = score.last.own;
      if (m.level > 0.01) call.loudAt = now;
      if (m.speaking && !call.speaking) call.fresh = true;
      if (m.heard) score.say("user", m.heard, now, false);
      if (m.text) { score.say("own", m.text, now, call.fresh); call.fresh = false; }
      if (own) { own.speaking = m.speaking; if (m.speaking) own.at = now; }
      if (m.interrupted && own) own.element.classList.add("cut");
      describe({ speaking: m.speaking, stalled: false, frameAt: performance.now() });
      gate.push({ turn: m.turn, speaking: m.speaking, level: m.level });
      if (gate.length > 500) gate.splice(0, 250);
      drawGate();
      if (m.p50 === undefined) return;
      $("step").textContent = `${m.p50} ms, p95 ${m.p95} ms`;
      $("store").textContent = `${Math.round(m.store + (call.buffered || 0))} ms`;
      line({ slow: m.skipped > call.skipped ? "The machine is too slow at the moment: some of what you say is lost." : "" });
      call.skipped = m.skipped;
    },
    pong(m) {
      const trip = call.trip === undefined ? performance.now() - m.at : call.trip;
      $("trip").textContent = `${trip < 10 ? trip.toFixed(1) : Math.round(trip)} ms`;
    },
    told(m) {
      score.note(`You told it in writing: ${m.text}`);
      line({ refused: "" });
      if ($("tell-text").value.trim() === m.text) $("tell-text").value = "";
    },
    ending(m) { describe({ ending: true }); score.note(`${m.seconds} seconds left.`); },
    ended(m) { stop(`The conversation has ended: ${m.why}. Press Talk for a new one.`); },
    problem(m) { if (m.goes_on) line({ refused: m.message }); else stop(m.message); },
  };

  async function start(recorded) {
    const mine = (call = { speaking: false, loudAt: -1, recorded, began: performance.now() });
    show("asking", recorded ? "Connecting…" : "Asking for the microphone…");
    score.clear(); gate.length = 0; drawGate();
    if (!recorded && !navigator.mediaDevices) return stop("The microphone needs a page over https, or one at 127.0.0.1.");
    try {
      mine.context = new AudioContext({ sampleRate: LINE_RATE });
      mine.mic = recorded ? await recording(mine) : await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 } });
    } catch (error) { return call === mine && stop(MICROPHONE[error.name] || `The ${recorded ? "question" : "microphone"} cannot be used: ${error.message}.`); }
    if (call !== mine) return mine.mic.getTracks().forEach((track) => track.stop());
    mine.source = mine.context.createMediaStreamSource(mine.mic);
    meter(mine.source, "user");
    show("connecting", "Connecting…");
    mine.control = new WebSocket(url("live", "ws"));
    mine.control.onopen = () => mine.control.send(JSON.stringify({
      type: "start", instructions: $("instructions").value, context: $("context").value, voice: chosenVoice(),
    }));
    mine.control.onmessage = (event) => { const m = JSON.parse(event.data); if (call === mine) told[m.type](m); };
    mine.control.onclose = () => call === mine && stop("The connection was lost. Press Talk for a new conversation.");
  }

  function stop(words) {
    const mine = call;
    call = null;
    if (mine) {
      clearInterval(mine.clock);
      if (mine.sound) mine.sound.close();
      if (mine.pc) mine.pc.close();
      if (mine.control) mine.control.close();
      if (mine.mic) mine.mic.getTracks().forEach((track) => track.stop());
      if (mine.context) mine.context.close();
      $("audio").srcObject = null;
    }
    for (const name of ["left", "line"]) put(name, "");
    $("mute").setAttribute("aria-pressed", "false");
    $("mute").textContent = "Mute my microphone";
    show("idle", words || "Stopped, and forgotten. Press Talk for a new conversation.");
  }

  // ------------------------------------------------------------ voices

  function chosenVoice() {
    const value = $("voice").value;
    return kept.has(value) ? { file: kept.get(value) } : value ? { name: value } : null;
  }
  /* Keeps a voice and chooses it; gives the list for Gradio's own, as its server would write an update of them. */
  function keepVoice(name, file) {
    if (!kept.has(name) && [...$("voice").options].some((option) => option.text === name)) name += " (yours)";
    if (!kept.has(name)) $("voice").add(new Option(name, name));
    kept.set(name, file);
    $("voice").value = name;
    $("scene").open = true;
    return { __type__: "update", choices: [...$("voice").options].map((option) => [option.text, option.value]), value: name };
  }
  /* What Gradio's functions take: a file, or the name of a bundled voice. A kept one is uploaded anew, since the server soon deletes it. */
  async function voiceOf(file, name) {
    if (!kept.has(name)) return [file, name];
    return [file || await upload(kept.get(name)), ""];
  }
  async function upload(data) {
    const form = new FormData(), bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    form.append("files", new File([bytes], "voice.safetensors"));
    const [path] = await (await fetch(url("gradio_api/upload"), { method: "POST", body: form })).json();
    return { path, orig_name: "voice.safetensors", meta: { _type: "gradio.FileData" } };
  }
  const inBase64 = (file) => new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
  /* A file's content in base64, if the server finds a voice in it. */
  async function checked(file) {
    const fits = file.name.endsWith(".safetensors") && file.size && file.size <= LARGEST_VOICE;
    if (!fits) throw new Error("It is not a voice file: clone a recording in the Clone tab first.");
    const data = await inBase64(file);
    const answer = await (await fetch(url("live/voice"), {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ file: data }),
    })).json();
    if (answer.problem) throw new Error(answer.problem);
    return data;
  }

  // ------------------------------------------------------------ Gradio's own slips, for screen readers

  function tidy() {
    for (const hidden of document.querySelectorAll(".tab-container.visually-hidden, table[aria-hidden=true]")) hidden.inert = true;
    for (const empty of document.querySelectorAll("[aria-label='Empty value']:not([role])")) empty.setAttribute("role", "img");
    for (const bare of document.querySelectorAll(".image-container button:not([aria-label])")) if (!bare.innerText.trim()) bare.setAttribute("aria-label", "Enlarge the picture");
  }
  new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
  tidy();

  // ------------------------------------------------------------ a way back to it from the other tabs

  const bar = Object.assign(document.createElement("button"), { type: "button", className: "bar", textContent: "Live conversation: Stop", onclick: () => stop() });
  let inSight = true;
  function showBar() { bar.hidden = !call || inSight; }
  document.querySelector(".gradio-container main").append(bar);
  new IntersectionObserver((seen) => { inSight = seen.at(-1).isIntersecting; showBar(); }).observe($("talk").closest(".michi"));

  $("talk").onclick = () => { if (!call) start(false); else if (performance.now() - call.began > DOUBLE_CLICK_MS) stop(); };
  $("play").onclick = () => { if (!call) start(true); else if (talking()) call.play(); };
  $("mute").onclick = () => {
    const muted = $("mute").getAttribute("aria-pressed") !== "true";
    call.mic.getTracks().forEach((track) => (track.enabled = !muted));
    $("mute").setAttribute("aria-pressed", String(muted));
    $("mute").textContent = muted ? "Unmute my microphone" : "Mute my microphone";
    describe({ muted });
  };
  $("tell").onsubmit = (event) => {
    event.preventDefault();
    const text = $("tell-text").value.trim();
    if (!text || !call) return;
    call.control.send(JSON.stringify({ type: "inject", text }));
  };
  $("voice-file").onchange = async ({ target }) => {
    const file = target.files[0];
    if (!file) return;
    try {
      keepVoice(file.name.replace(".safetensors", ""), await checked(file));
      put("voice-note", "");
    } catch (error) {
      put("voice-note", `${file.name} is refused. ${error.message}`);
      target.value = "";
    }
  };
  window.addEventListener("pagehide", () => call && stop());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawGate);
  window.michiai = { keepVoice, voiceOf };
  show("idle", $("state").textContent);
}
