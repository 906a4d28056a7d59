/* Packets are stamped in a worker; microphone and loudspeaker are recorded as two channels of one context. */
(() => {
  const work = `onrtctransform = ({ transformer: { readable, writable } }) => { const at = [];
    readable.pipeThrough(new TransformStream({ transform(f, c) { at.push(performance.now()); c.enqueue(f); } })).pipeTo(writable);
    onmessage = () => postMessage(at); };`;
  const add = RTCPeerConnection.prototype.addTrack; // a transform set as late as in the track event is not heeded
  RTCPeerConnection.prototype.addTrack = function (...args) {
    const sender = add.apply(this, args);
    stamp(this.getTransceivers().find((t) => t.sender === sender).receiver);
    return sender;
  };
  const stamp = (receiver) => {
    const worker = window.__worker = new Worker(URL.createObjectURL(new Blob([work], { type: "text/javascript" })));
    receiver.transform = new RTCRtpScriptTransform(worker, {});
  };
  window.__times = () => new Promise((done) => { window.__worker.onmessage = (e) => done(e.data); window.__worker.postMessage(0); });
  window.__ear.listen = async (stream) => {
    const context = new AudioContext({ sampleRate: 48000 }), both = context.createChannelMerger(2);
    const tap = `registerProcessor("both", class extends AudioWorkletProcessor {
      process([c]) { if (c.length > 1) { let a = 0, b = 0; for (let i = 0; i < c[0].length; i++) { a += c[0][i] ** 2; b += c[1][i] ** 2; }
        this.port.postMessage([a, b]); } return true; } });`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([tap], { type: "text/javascript" })));
    const node = new AudioWorkletNode(context, "both", { channelCount: 2, channelCountMode: "explicit" });
    window.__levels = []; node.port.onmessage = ({ data }) => window.__levels.push(data);
    context.createMediaStreamSource(window.__mouth.out.stream).connect(both, 0, 0);
    context.createMediaStreamSource(stream).connect(both, 0, 1);
    both.connect(node);
  };
})();
