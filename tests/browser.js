/* Hooks for the browser tests: a recorder on every connection, and a second microphone that speaks when told to. */
(() => {
  const tap = `registerProcessor("recorder", class extends AudioWorkletProcessor {
    process([[c]]) { if (c) this.port.postMessage(c.slice()); return true; } });`;
  const ear = window.__ear = { chunks: [], at: null };
  ear.listen = async (stream) => {
    if (ear.context) await ear.context.close(); // of the conversation before: it would go on recording its silence between
    ear.chunks = []; ear.at = null;
    const context = ear.context = new AudioContext({ sampleRate: 48000 });
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([tap], { type: "text/javascript" })));
    const node = new AudioWorkletNode(context, "recorder");
    node.port.onmessage = ({ data }) => { if (ear.at === null) ear.at = performance.now(); ear.chunks.push(data); };
    context.createMediaStreamSource(stream).connect(node);
  };
  ear.take = () => { // 16 bit samples in base64
    const all = new Int16Array(ear.chunks.reduce((sum, c) => sum + c.length, 0));
    let at = 0, out = "";
    for (const chunk of ear.chunks) for (const v of chunk) all[at++] = Math.max(-1, Math.min(1, v)) * 32767;
    const bytes = new Uint8Array(all.buffer);
    for (let i = 0; i < bytes.length; i += 8192) out += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(out);
  };
  const Real = window.RTCPeerConnection;
  if (Real) {
    window.RTCPeerConnection = function (...args) {
      const pc = new Real(...args);
      ear.pc = pc;
      pc.addEventListener("track", (e) => ear.listen(e.streams[0] || new MediaStream([e.track])));
      return pc;
    };
    window.RTCPeerConnection.prototype = Real.prototype;
  }
  const mouth = window.__mouth = {};
  mouth.use = () => { navigator.mediaDevices.getUserMedia = async () => {
    mouth.context = new AudioContext({ sampleRate: 48000 });
    mouth.out = mouth.context.createMediaStreamDestination();
    const floor = mouth.context.createConstantSource(); floor.offset.value = 0; floor.connect(mouth.out); floor.start();
    return mouth.out.stream; }; };
  mouth.say = async (wav) => {
    const bytes = Uint8Array.from(atob(wav), (c) => c.charCodeAt(0));
    const source = mouth.context.createBufferSource();
    source.buffer = await mouth.context.decodeAudioData(bytes.buffer);
    source.connect(mouth.out); source.start();
    return performance.now();
  };
})();
