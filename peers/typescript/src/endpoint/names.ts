/** Who may have a connection under a name: docs/wire.md section 13. */

import type { Link } from "./endpoint.js";

export interface Names {
  own(): string;
  /** The accepted connection to this name. */
  held(name: string): Link | undefined;
  /** Our own attempts to reach this name that are not accepted yet. */
  attempts(name: string): Link[];
  /** Take the connection. */
  hold(link: Link): void;
  /** How long a holder may take to show that it lives. */
  readonly probeMs: number;
}

/** Of two names: whether `a` has the smaller byte where they first differ, or is the beginning of `b`. */
export function isLower(a: string, b: string): boolean {
  // Names are ASCII: code units are bytes.
  return a < b;
}

function isGone(link: Link): boolean {
  return link.connection.isClosed || link.connection.session.end !== null;
}

/** Decide on a connection whose hello is valid: accept it, or say goodbye. The numbers are those of section 13. */
export async function decide(link: Link, names: Names): Promise<void> {
  const own = names.own();
  const { name } = link;
  const refuse = (code: "nameInUse" | "duplicate", text: string): void => link.connection.goodbye(code, text);
  for (;;) {
    if (isGone(link)) return;
    // 1
    if (name === own) {
      refuse("nameInUse", `${own} is the name of this endpoint`);
      return;
    }
    // 2
    const crossing = link.connector ? [] : names.attempts(name);
    if (crossing.length > 0 && isLower(own, name)) {
      refuse("duplicate", `${own} is connecting to ${name} itself; that connection survives`);
      return;
    }
    for (const attempt of crossing) attempt.connection.goodbye("duplicate", `${name} has connected; that connection survives`);
    const held = names.held(name);
    // 3
    if (held === undefined) {
      names.hold(link);
      return;
    }
    if (Buffer.compare(held.instance, link.instance) !== 0) {
      // 4
      const lives = await held.connection.answers(names.probeMs);
      if (isGone(link)) return;
      if (names.held(name) !== held) continue;
      if (lives) {
        refuse("nameInUse", `another living endpoint has the name ${name}`);
        return;
      }
      held.connection.goodbye("replaced", `${name} did not answer, and another endpoint claims the name`);
    } else if (held.connector === link.connector) {
      // 5
      held.connection.goodbye("replaced", `a newer connection of ${name} takes over`);
    } else {
      // 6
      const survivorIsOurs = isLower(own, name);
      if (link.connector !== survivorIsOurs) {
        refuse("duplicate", `the connection that ${survivorIsOurs ? own : name} opened survives`);
        return;
      }
      held.connection.goodbye("duplicate", `the connection that ${survivorIsOurs ? own : name} opened survives`);
    }
    names.hold(link);
    return;
  }
}
