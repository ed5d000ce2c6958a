// A conversation with Hume's EVI: https://dev.hume.ai/docs/speech-to-speech-evi/overview
//
// A browser cannot set header fields on a WebSocket. Keyrelay adds the credential.

export class Chat {
  #socket;
  #waiting = []; // messages sent before the socket was open

  // on: callbacks for events: state, message, audio, ended
  constructor(hume, on) {
    on.state("connecting");
    this.#socket = new WebSocket(`${hume.replace(/^http/, "ws")}/v0/evi/chat`);
    this.#socket.onopen = () => {
      on.state("connected");
      for (const text of this.#waiting.splice(0)) this.say(text);
    };
    this.#socket.onmessage = ({ data }) => this.#heard(JSON.parse(data), on);
    this.#socket.onclose = ({ code, reason }) => {
      // A refused handshake is 1006 as well; browsers hide the reason. It is in keyrelay's log.
      on.state(`closed (${code}${reason && `: ${reason}`})`);
      on.ended();
    };
  }

  say(text) {
    if (this.#socket.readyState === WebSocket.CONNECTING) this.#waiting.push(text);
    else this.#socket.send(JSON.stringify({ type: "user_input", text }));
  }

  hangUp() {
    this.#socket.close(1000);
  }

  #heard(message, on) {
    switch (message.type) {
      case "user_message":
      case "assistant_message":
        on.message(message.message.role, message.message.content);
        break;
      case "audio_output":
        on.audio(Uint8Array.from(atob(message.data), (letter) => letter.charCodeAt(0)).buffer);
        break;
      case "error":
        on.message("error", message.message);
        break;
    }
  }
}
