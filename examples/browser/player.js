// Plays pieces of sound one after the other, and draws the level of each.

const RATE = 48_000;

export class Player {
  #canvas;
  #context = null;
  #free = 0; // when the last piece ends, in the context's seconds
  #playing = new Set();

  constructor(canvas) {
    this.#canvas = canvas;
  }

  resume() {
    this.#context ??= new AudioContext({ sampleRate: RATE });
    this.#context.resume();
  }

  // A whole file, as WAV.
  async play(file) {
    this.#enqueue(await this.#context.decodeAudioData(file));
  }

  playSamples(samples) {
    const buffer = this.#context.createBuffer(1, samples.length, RATE);
    const channel = buffer.getChannelData(0);
    for (let at = 0; at < samples.length; at++) channel[at] = samples[at] / 32_768;
    this.#enqueue(buffer);
  }

  silence() {
    for (const source of this.#playing) source.stop();
    this.#free = 0;
  }

  #enqueue(buffer) {
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    this.#playing.add(source);
    source.onended = () => this.#playing.delete(source);
    this.#free = Math.max(this.#free, this.#context.currentTime);
    source.start(this.#free);
    this.#free += buffer.duration;
    this.#draw(buffer.getChannelData(0));
  }

  // One bar more at the right, everything else a step to the left.
  #draw(channel) {
    const { width, height } = this.#canvas;
    const pen = this.#canvas.getContext("2d");
    const step = 8;
    const loudness = Math.sqrt(channel.reduce((sum, one) => sum + one * one, 0) / channel.length);
    const bar = Math.max(1, Math.min(1, loudness * 3) * height);
    const before = pen.getImageData(step, 0, width - step, height);
    pen.clearRect(0, 0, width, height);
    pen.putImageData(before, 0, 0);
    pen.fillStyle = "mediumseagreen";
    pen.fillRect(width - step + 1, height - bar, step - 2, bar);
  }
}
