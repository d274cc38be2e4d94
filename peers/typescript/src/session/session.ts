/**
 * One connection as a value: bytes in, calls to its owner, bytes to write, the next deadline. It knows no socket and no
 * clock: time is an argument, in milliseconds from any start. docs/wire.md sections 3 to 10.
 */

import { type FailedCode, type GoodbyeCode, ProtocolError } from "../errors.js";
import type { EventType } from "../types.js";
import { type Control, cutText, decodeControl, type Failed, type Hello, type Subscriptions } from "../wire/control.js";
import { type Frame, FrameDecoder, type FrameHeader } from "../wire/frame.js";
import { LONG_TEXT_BYTES, MAX_OPEN_REQUESTS, SHORT_TEXT_BYTES } from "../wire/limits.js";
import { CreditClock, ReceiveWindow, SendWindow } from "./credit.js";
import { checkHello } from "./hello.js";
import { Keepalive } from "./keepalive.js";
import { Outbox, type RequestItem } from "./outbox.js";
import type { End, Owner, SessionSettings, Ticket } from "./owner.js";
import { Acknowledgements, PeerSubscriptions } from "./subscriptions.js";
import { Declared, type OwnTable, partRows, PeerTable } from "./table.js";

type Direction = "opening" | "introduced" | "active";

export class Session {
  readonly table = new PeerTable();
  readonly outbox: Outbox;
  #owner: Owner;
  #decoder: FrameDecoder;
  #declared: Declared;
  #events: ReceiveWindow;
  #requests: ReceiveWindow;
  #creditClock: CreditClock;
  #owesCredit = false;
  #keepalive: Keepalive;
  /** What the peer has sent, and what we have. */
  #theirs: Direction = "opening";
  #ours: Direction = "opening";
  /** The hello has been handed to the owner, which has not decided yet: what arrives has to wait. */
  #deciding = false;
  #backlog: Uint8Array[] = [];
  #backlogBytes = 0;
  #handshakeDeadline: number;
  #closeDeadline: number | null = null;
  #end: End | null = null;
  #goodbyeSent = false;
  readonly #wanted = new PeerSubscriptions();
  readonly #acknowledgements: Acknowledgements;
  #oweAck = false;
  #owePong = false;
  /** Requests of ours that are open. */
  #tickets = new Map<bigint, Ticket>();
  #queuedTickets = new Set<Ticket>();
  /** Requests of the peer that are open, and the highest number. */
  #open = new Set<bigint>();
  #lastNumber = 0n;
  #told = new Map<bigint, string>();
  peer: Hello | null = null;
  skipped = 0;
  late = 0;
  receivedEvents = 0;
  /** How often the peer gave credit of events back: it has taken some. */
  creditReturns = 0;
  /** When the last byte arrived. */
  heardAt = 0;

  constructor(
    readonly settings: SessionSettings,
    owner: Owner,
    own: OwnTable,
    hello: Iterable<EventType>,
    now: number,
  ) {
    this.#owner = owner;
    this.#declared = new Declared(own);
    this.#decoder = new FrameDecoder(settings.frameLimit, (header) => this.#admit(header));
    this.#events = new ReceiveWindow(settings.eventCredit);
    this.#requests = new ReceiveWindow(settings.requestCredit);
    this.#creditClock = new CreditClock([this.#events, this.#requests]);
    this.#acknowledgements = new Acknowledgements(settings.ackMs);
    this.#keepalive = new Keepalive(settings.keepaliveMs, settings.keepaliveMisses, now);
    this.#handshakeDeadline = now + settings.handshakeMs;
    this.outbox = new Outbox(settings.queueBytes, () => this.#owed());
    this.#helloTypes = [...hello];
    if (settings.role === "connector") this.#sendHello();
  }

  #helloTypes: EventType[];

  get isUp(): boolean {
    return this.wasUp && this.#end === null;
  }

  /** Our first subscriptions are sent. */
  get isAccepted(): boolean {
    return this.#ours === "active" && this.#end === null;
  }

  /** It was up, whatever it is now. */
  get wasUp(): boolean {
    return this.#ours === "active" && this.#theirs === "active";
  }

  get end(): End | null {
    return this.#end;
  }

  /** So much waits for the owner's decision that the stream should not be read on. */
  get backlogFull(): boolean {
    return this.#backlogBytes > 2 ** 21;
  }

  // --- bytes in ---------------------------------------------------------------------------------------------

  receive(chunk: Uint8Array, now: number): void {
    this.#keepalive.heard(now);
    this.heardAt = now;
    if (this.#end !== null) return;
    if (this.#deciding) {
      this.#backlog.push(chunk);
      this.#backlogBytes += chunk.length;
      return;
    }
    try {
      let at = 0;
      while (at < chunk.length) {
        const { frame, end } = this.#decoder.take(chunk, at);
        at = end;
        if (frame !== null) this.#take(frame, now);
        if (this.#end !== null) return;
        if (this.#deciding) {
          if (at < chunk.length) this.#backlog.push(chunk.subarray(at));
          this.#backlogBytes += chunk.length - at;
          return;
        }
      }
    } catch (error) {
      this.#refuse(error, now);
    }
  }

  #refuse(error: unknown, now: number): void {
    if (error instanceof ProtocolError) this.goodbye(error.code, error.message, now);
    else this.goodbye("internalError", String(error), now);
  }

  /** The stream ended, or broke. */
  endOfStream(): void {
    this.#finish({ code: "", byPeer: true, text: "the stream ended without a goodbye" });
  }

  // Before memory is taken for the frame.
  #admit(header: FrameHeader): void {
    if (header.kind === "control") return;
    if (!this.isUp) {
      throw new ProtocolError("protocolError", `${header.kind} before the connection is up`);
    }
    if (header.kind === "event") this.#events.check("an event");
    if (header.kind === "request") this.#requests.check("a request");
    if (header.kind === "response") this.#checkCorrelation(header.correlation);
    if (this.table.typeOf(header.wireId) === undefined) {
      throw new ProtocolError("unknownId", `${header.kind} with the wire id ${header.wireId}, which was never declared`);
    }
  }

  #checkCorrelation(correlation: bigint): void {
    const last = this.outbox.lastRequest;
    if (correlation !== 0n && correlation <= last) return;
    throw new ProtocolError("unknownCorrelation", `an answer to request ${correlation}; the last one sent is ${last}`);
  }

  #take(frame: Frame, now: number): void {
    if (frame.kind === "control") {
      this.#takeControl(decodeControl(frame.segments), now);
      return;
    }
    const typeId = this.table.typeOf(frame.wireId)!;
    if (frame.kind === "event") this.#takeEvent(typeId, frame);
    else if (frame.kind === "request") this.#takeRequest(typeId, frame);
    else this.#takeResponse(typeId, frame);
    this.#creditClock.charged(now);
  }

  #takeControl(message: Control, now: number): void {
    if (message.is === "goodbye") {
      this.#finish({ code: message.code, byPeer: true, text: message.text });
      return;
    }
    const early = message.is === "declare" || message.is === "ping" || message.is === "pong" || message.is === "subscriptions";
    const allowed =
      this.#theirs === "opening" ? message.is === "hello" : message.is !== "hello" && (early || this.#theirs === "active");
    if (!allowed) {
      throw new ProtocolError("protocolError", `${message.is} is not allowed while the peer's direction is ${this.#theirs}`);
    }
    switch (message.is) {
      case "hello":
        this.#takeHello(message);
        break;
      case "declare":
        this.table.add(message.types);
        this.#tellDisabled();
        break;
      case "subscriptions":
        this.#takeSubscriptions(message, now);
        break;
      case "subscriptionsAck":
        this.#acknowledgements.reached(message.sequence, now);
        this.#owner.acknowledged(message.sequence);
        break;
      case "credit":
        if (message.events > 0n) this.creditReturns += 1;
        this.outbox.eventsWindow!.add(message.events);
        this.outbox.requestsWindow!.add(message.requests);
        break;
      case "failed":
        this.#takeFailed(message);
        break;
      case "ping":
        this.#owePong = true;
        break;
      case "pong":
      case "dropped":
        break;
    }
  }

  #takeHello(hello: Hello): void {
    checkHello(hello, this.settings, this.table);
    this.peer = hello;
    this.#theirs = "introduced";
    this.outbox.eventsWindow = new SendWindow(hello.eventCredit);
    this.outbox.requestsWindow = new SendWindow(hello.requestCredit);
    this.#tellDisabled();
    this.#deciding = true;
    this.#owner.hello(hello);
  }

  #takeSubscriptions(message: Subscriptions, now: number): void {
    const { added, removed } = this.#wanted.apply(message, this.table, this.outbox);
    this.#oweAck ||= message.ackWanted;
    if (this.#theirs === "introduced") {
      this.#theirs = "active";
      this.#upIfSo(now);
    }
    this.#owner.peerSubscriptions(added, removed, message.all);
  }

  #upIfSo(now: number): void {
    if (!this.isUp) return;
    this.#keepalive.heard(now);
    this.#acknowledgements.await(now);
    this.#owner.up();
  }

  #takeEvent(typeId: bigint, frame: Frame): void {
    this.#events.charge(frame.size);
    const type = this.#owner.typeOf(typeId);
    if (type === undefined || !this.#owner.subscribes(typeId) || this.table.difference(type) !== null) {
      this.skipped += 1;
      this.#events.giveBack(frame.size);
      return;
    }
    this.receivedEvents += 1;
    this.#owner.event(type, frame);
  }

  /** The last subscription has taken the event. */
  eventTaken(size: number): void {
    this.#events.giveBack(size);
  }

  #takeRequest(typeId: bigint, frame: Frame): void {
    const number = frame.correlation;
    if (number <= this.#lastNumber) {
      throw new ProtocolError("protocolError", `request ${number} after request ${this.#lastNumber}`);
    }
    this.#lastNumber = number;
    this.#requests.charge(frame.size);
    const type = this.#owner.typeOf(typeId);
    const refusal = this.#refusal(typeId, type);
    this.#open.add(number);
    if (refusal !== null) {
      this.fail(number, refusal.code, "", refusal.text);
      this.#requests.giveBack(frame.size);
    } else {
      this.#owner.request({ number, type: type!, frame });
    }
  }

  #refusal(typeId: bigint, type: EventType | undefined): { code: FailedCode; text: string } | null {
    const { name } = this.settings;
    if (type === undefined) return { code: "unknownType", text: `${name} knows no type 0x${typeId.toString(16)}` };
    const difference = this.table.difference(type);
    if (difference !== null) return { code: "incompatibleType", text: difference };
    if (!this.#owner.serves(typeId)) return { code: "noHandler", text: `${name} has no handler for ${type.name}` };
    if (this.#open.size >= MAX_OPEN_REQUESTS) {
      return { code: "overloaded", text: `${name} has ${MAX_OPEN_REQUESTS} open requests of this peer, its limit` };
    }
    return null;
  }

  /** The last handler of a request has started. */
  requestTaken(size: number): void {
    this.#requests.giveBack(size);
  }

  #takeResponse(typeId: bigint, frame: Frame): void {
    const ticket = this.#close(frame.correlation);
    const type = this.#owner.typeOf(typeId);
    const difference = type === undefined ? null : this.table.difference(type);
    if (difference === null) ticket?.answered(typeId, frame);
    else ticket?.failed({ code: "incompatibleType", typeName: "", text: difference });
  }

  #takeFailed(message: Failed): void {
    this.#checkCorrelation(message.correlation);
    this.#close(message.correlation)?.failed(message);
  }

  #close(correlation: bigint): Ticket | undefined {
    const ticket = this.#tickets.get(correlation);
    if (ticket === undefined) this.late += 1;
    this.#tickets.delete(correlation);
    return ticket;
  }

  #tellDisabled(): void {
    for (const type of this.#helloTypes) {
      const difference = this.table.difference(type);
      if (difference === null || this.#told.get(type.typeId) === difference) continue;
      this.#told.set(type.typeId, difference);
      this.#owner.disabled(type, difference);
    }
  }

  // --- what the owner does -----------------------------------------------------------------------------------

  /** Take the peer, with these first subscriptions. */
  accept(types: Iterable<EventType>, all: boolean, now: number): void {
    if (this.#end !== null || this.#ours === "active") return;
    if (this.settings.role === "acceptor") this.#sendHello();
    this.#ours = "active";
    this.subscribe([...types], [], all, now);
    this.#deciding = false;
    this.#upIfSo(now);
    const backlog = this.#backlog;
    this.#backlog = [];
    this.#backlogBytes = 0;
    for (const chunk of backlog) this.receive(chunk, now);
  }

  #sendHello(): void {
    const { name, instance, implementation, version, frameLimit, keepaliveMs, eventCredit, requestCredit } = this.settings;
    const [first, ...rest] = partRows(this.#declared.rowsFor(this.#helloTypes));
    this.outbox.control({
      is: "hello",
      name,
      instance,
      implementation,
      version,
      frameLimit,
      keepaliveMs,
      eventCredit,
      requestCredit,
      features: [],
      types: first!,
    });
    this.#ours = "introduced";
    for (const types of rest) this.outbox.control({ is: "declare", types });
  }

  /** Declare what the peer does not know yet. */
  declare(types: Iterable<EventType>): void {
    const list = [...types];
    for (const types of partRows(this.#declared.rowsFor(list))) {
      if (types.length > 0) this.outbox.control({ is: "declare", types });
    }
    for (const type of list) if (!this.#helloTypes.includes(type)) this.#helloTypes.push(type);
    this.#tellDisabled();
  }

  /** Change our subscriptions; gives the sequence that will be acknowledged. */
  subscribe(add: readonly EventType[], remove: readonly EventType[], all: boolean, now: number): bigint {
    this.declare(add);
    const sequence = this.#acknowledgements.next();
    this.outbox.control({
      is: "subscriptions",
      sequence,
      add: add.map((type) => type.typeId),
      remove: remove.map((type) => type.typeId),
      all,
      ackWanted: true,
    });
    if (this.isUp) this.#acknowledgements.await(now);
    return sequence;
  }

  /** The peer subscribes to this type, or to all. */
  wants(typeId: bigint): boolean {
    return this.#wanted.has(typeId);
  }

  /** Send a request; the ticket learns what becomes of it. Gives what forgets it. */
  request(frame: Uint8Array, ticket: Ticket): () => void {
    let number = 0n;
    const item: RequestItem = {
      frame,
      sent: (given) => {
        number = given;
        this.#queuedTickets.delete(ticket);
        this.#tickets.set(given, ticket);
      },
    };
    this.#queuedTickets.add(ticket);
    this.outbox.request(item);
    return () => {
      this.#queuedTickets.delete(ticket);
      if (number === 0n) this.outbox.withdraw(item);
      else this.#tickets.delete(number);
    };
  }

  /** Whether a request of the peer still waits for its answer. */
  isOpen(number: bigint): boolean {
    return this.#end === null && this.#open.has(number);
  }

  respond(number: bigint, frame: Uint8Array): void {
    if (!this.isOpen(number)) return;
    this.#open.delete(number);
    this.outbox.response(frame);
  }

  fail(number: bigint, code: FailedCode, typeName: string, text: string): void {
    if (!this.isOpen(number)) return;
    this.#open.delete(number);
    this.outbox.control({
      is: "failed",
      correlation: number,
      code,
      typeName: cutText(typeName, SHORT_TEXT_BYTES),
      text: cutText(text, LONG_TEXT_BYTES),
    });
  }

  ping(): void {
    if (this.#end === null) this.outbox.control({ is: "ping" });
  }

  /** End the connection. */
  goodbye(code: GoodbyeCode, text: string, now: number): void {
    if (this.#end !== null) return;
    this.outbox.clear();
    this.outbox.control({ is: "goodbye", code, text: cutText(text, SHORT_TEXT_BYTES) });
    this.#closeDeadline = now + this.settings.goodbyeMs;
    this.#finish({ code, byPeer: false, text });
  }

  #finish(end: End): void {
    if (this.#end !== null) return;
    this.#end = end;
    if (end.byPeer) this.outbox.clear();
    this.#backlog = [];
    const tickets = [...this.#tickets.values(), ...this.#queuedTickets];
    this.#tickets.clear();
    this.#queuedTickets.clear();
    for (const ticket of tickets) ticket.lost();
    this.#owner.ended(end);
  }

  // --- bytes out, and time -------------------------------------------------------------------------------------

  /** The next frame to write; null if there is none now. After the goodbye comes nothing. */
  next(): Uint8Array | null {
    if (this.#goodbyeSent) return null;
    const frame = this.outbox.next();
    if (this.#end !== null) this.#goodbyeSent = true;
    return frame;
  }

  /** Our direction is to be ended: the goodbye has been handed to the stream. */
  get saidGoodbye(): boolean {
    return this.#goodbyeSent && this.#end?.byPeer === false;
  }

  // Called when it can be written, so one of each is enough however often it was owed. Nothing is owed before our
  // first subscriptions are queued: what arrives until then waits for the decision.
  #owed(): Control | null {
    if (this.#end !== null) return null;
    if (this.#owePong) {
      this.#owePong = false;
      return { is: "pong" };
    }
    if (this.#oweAck) {
      this.#oweAck = false;
      return { is: "subscriptionsAck", sequence: this.#wanted.sequence };
    }
    if (this.#owesCredit || this.#events.due || this.#requests.due) {
      this.#owesCredit = false;
      return { is: "credit", events: this.#events.take(), requests: this.#requests.take() };
    }
    return null;
  }

  /** When tick() is to be called at the latest; null for never. */
  get deadline(): number | null {
    if (this.#end !== null) return this.#closeDeadline;
    if (!this.isUp) return this.#handshakeDeadline;
    const clocks = [this.#keepalive, this.#creditClock, this.#acknowledgements];
    const deadlines = clocks.flatMap(({ deadline }) => (deadline === null ? [] : [deadline]));
    return deadlines.length === 0 ? null : Math.min(...deadlines);
  }

  /** Do what time demands. True: the connection must be closed now. Read everything that is readable before. */
  tick(now: number): boolean {
    if (this.#end !== null) return this.#closeDeadline === null || now >= this.#closeDeadline;
    if (!this.isUp) {
      if (now >= this.#handshakeDeadline) {
        const { handshakeMs } = this.settings;
        this.goodbye("handshakeTimeout", `the handshake did not end within ${handshakeMs} ms`, now);
      }
      return false;
    }
    if (this.#creditClock.check(now)) this.#owesCredit = true;
    try {
      this.#acknowledgements.check(now);
    } catch (error) {
      this.#refuse(error, now);
      return false;
    }
    const todo = this.#keepalive.check(now);
    if (todo === "ping") this.ping();
    if (todo === "dead") {
      const { keepaliveMisses, keepaliveMs } = this.settings;
      this.goodbye("keepaliveTimeout", `nothing arrived for ${keepaliveMisses} times ${keepaliveMs} ms`, now);
    }
    return false;
  }
}

