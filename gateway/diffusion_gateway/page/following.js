// Following jobs to their end: by event stream, or by asking now and then.

import { call, openEvents, parsed } from "./client.js";

// A browser opens six connections to a host; pictures and submissions need some of them.
const MOST_STREAMS = 3;
const ASK_MS = 2500;
const LONGEST_PAUSE_MS = 30_000;
const KINDS = ["status", "progress", "preview", "completed", "failed", "cancelled"];
const ENDS = new Set(["completed", "failed", "cancelled"]);

/** `heard(id, kind, document)` is called with what happens; kind is "gone" for a deleted record. */
export class Following {
  constructor(heard) {
    this.heard = heard;
    this.followed = new Map();
    setInterval(() => this.ask(), ASK_MS);
  }

  add(id) {
    this.followed.set(id, { stream: null, opening: false, looking: false, after: 0, pause: 1000 });
    this.fill();
  }

  remove(id) {
    this.followed.get(id)?.stream?.close();
    this.followed.delete(id);
    this.fill();
  }

  /** Gives free streams to the jobs that came first. */
  fill() {
    let free = MOST_STREAMS;
    for (const [id, state] of this.followed) {
      if (free === 0) return;
      free -= 1;
      if (!state.stream && !state.opening) this.open(id, state);
    }
  }

  async open(id, state) {
    state.opening = true;
    try {
      const stream = await openEvents(id, state.after);
      if (!this.followed.has(id)) { stream.close(); return; }
      state.stream = stream;
      for (const kind of KINDS) stream.addEventListener(kind, (event) => this.event(id, state, event));
      stream.addEventListener("error", () => stream.readyState === EventSource.CLOSED && this.again(id, state));
      state.opening = false;
    } catch {
      this.again(id, state);
    }
  }

  event(id, state, event) {
    state.after = event.lastEventId || state.after;
    state.pause = 1000;
    this.tell(id, event.type, parsed(event.data));
  }

  /** A stream that was refused, its ticket being too old for instance: look, then open another. */
  async again(id, state) {
    state.stream = null;
    state.opening = true;
    await this.look(id, state);
    await new Promise((wake) => setTimeout(wake, state.pause));
    state.pause = Math.min(2 * state.pause, LONGEST_PAUSE_MS);
    state.opening = false;
    if (this.followed.has(id)) this.fill();
  }

  /** Asks for those that have no stream: too many are open, or the gateway gives no more. */
  ask() {
    for (const [id, state] of this.followed) if (!state.stream && !state.looking) this.look(id, state);
  }

  async look(id, state) {
    state.looking = true;
    try {
      const document = await call("GET", `jobs/${id}`);
      this.tell(id, ENDS.has(document.status) ? document.status : "status", document);
    } catch (problem) {
      if (problem.status === 404) this.tell(id, "gone", {});
    } finally {
      state.looking = false;
    }
  }

  tell(id, kind, document) {
    if (!this.followed.has(id)) return;
    if (ENDS.has(kind) || kind === "gone") this.remove(id);
    this.heard(id, kind, document);
  }
}
