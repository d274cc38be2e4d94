/** When to ping, and when a silent peer is dead: docs/wire.md section 10. Time is in milliseconds, from any start. */
export class Keepalive {
  #heard: number;
  /** When the pings were sent since something was heard last. */
  #pings: number[] = [];

  constructor(
    private readonly interval: number,
    private readonly misses: number,
    now: number,
  ) {
    this.#heard = now;
  }

  heard(now: number): void {
    this.#heard = now;
    this.#pings = [];
  }

  get deadline(): number | null {
    return this.interval === 0 ? null : (this.#pings.at(-1) ?? this.#heard) + this.interval;
  }

  /** What has to be done now. */
  check(now: number): "nothing" | "ping" | "dead" {
    const { deadline } = this;
    if (deadline === null || now < deadline) return "nothing";
    const unanswered = this.#pings.filter((sent) => now - sent >= this.interval).length;
    if (now - this.#heard >= this.misses * this.interval && unanswered >= this.misses - 1) return "dead";
    this.#pings.push(now);
    return "ping";
  }
}
