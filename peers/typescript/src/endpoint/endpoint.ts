/** The endpoint: one name on the bus, its connections, and what its user does. */

import { randomBytes } from "node:crypto";
import net from "node:net";
import type { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import type { Struct } from "capnp-es";
import { buildMessage } from "../capnp/build.js";
import { ConnectionClosed, EndpointStopped, NoResponder, PeerError, UsageError } from "../errors.js";
import { isName } from "../session/hello.js";
import type { End, Incoming, Owner, SessionSettings } from "../session/owner.js";
import { OwnTable } from "../session/table.js";
import type { EventType } from "../types.js";
import type { Hello } from "../wire/control.js";
import { encodeFrame, EVENT } from "../wire/frame.js";
import { INSTANCE_BYTES, MAX_BALANCE, MAX_FRAME_LIMIT, MIN_FRAME_LIMIT, UNLIMITED } from "../wire/limits.js";
import { ask } from "./asking.js";
import { Connection } from "./connection.js";
import { closeServer, listenOn } from "./listening.js";
import { decide, type Names } from "./names.js";
import type { Change, EndpointOptions, PeerStatus, RequestOptions } from "./options.js";
import { Gate, type Handler, handle, type Service } from "./serving.js";
import { Delivery, ReceivedEvent, Subscription } from "./subscription.js";

const GOODBYE_MS = 2000;
const PROBE_MS = 1000;
/** A broadcast lets others run when so many bytes wait already, though there is room for more. */
const POLITE_BYTES = 65_536;

/** What an endpoint knows of one of its connections. */
export interface Link {
  readonly connection: Connection;
  /** Opened by us. */
  readonly connector: boolean;
  /** Whom a connector wanted to reach. */
  readonly expected: string | null;
  /** The peer's name, when its hello is valid. */
  name: string;
  instance: Uint8Array;
  /** Settled when the connection is up, or has ended. */
  readonly up: Promise<void>;
  settle: (error: ConnectionClosed | null) => void;
}

export class Endpoint {
  readonly name: string;
  readonly #options: Required<Omit<EndpointOptions, "onChange" | "instance">>;
  readonly #instance: Uint8Array;
  readonly #change: (change: Change) => void;
  readonly #own = new OwnTable();
  readonly #known = new Map<bigint, EventType>();
  readonly #declared: EventType[] = [];
  readonly #links = new Set<Link>();
  readonly #held = new Map<string, Link>();
  readonly #subscriptions = new Map<bigint, Set<Subscription>>();
  readonly #all = new Set<Subscription>();
  readonly #services = new Map<bigint, Handler>();
  readonly #servers = new Set<net.Server>();
  /** Attempts that lost to a connection that crossed them: told of each name that comes up, and null at the end. */
  readonly #survivors = new Map<Link, (cameUp: string | null) => void>();
  #stopped = false;

  constructor(options: EndpointOptions) {
    const { name, instance, onChange, ...rest } = options;
    if (!isName(name)) {
      throw new UsageError(`"${name}" is no name of an endpoint: 1 to 100 of A-Z a-z 0-9 . _ -, a letter or digit first`);
    }
    this.name = name;
    this.#instance = instance ?? randomBytes(INSTANCE_BYTES);
    this.#change = onChange ?? (() => undefined);
    this.#options = {
      name,
      implementation: "lahja-capn-peer (TypeScript)",
      version: "0.1.0",
      frameLimit: 64 * 1024 * 1024,
      eventCredit: 16n * 1024n * 1024n,
      requestCredit: 4n * 1024n * 1024n,
      keepaliveMs: 60_000,
      handshakeMs: 10_000,
      ackMs: 30_000,
      queueBytes: 16 * 1024 * 1024,
      tooSlowMs: 5000,
      requestTimeoutMs: 30_000,
      ...rest,
    };
    this.#check();
  }

  #check(): void {
    const { frameLimit, eventCredit, requestCredit } = this.#options;
    if (this.#instance.length !== INSTANCE_BYTES) {
      throw new UsageError(`an instance has ${INSTANCE_BYTES} bytes, not ${this.#instance.length}`);
    }
    if (!Number.isInteger(frameLimit) || frameLimit < MIN_FRAME_LIMIT || frameLimit > MAX_FRAME_LIMIT) {
      throw new UsageError(`frameLimit is ${frameLimit}; it must be ${MIN_FRAME_LIMIT} to ${MAX_FRAME_LIMIT}`);
    }
    for (const credit of [eventCredit, requestCredit]) {
      if (credit < 0n || (credit > MAX_BALANCE && credit !== UNLIMITED)) {
        throw new UsageError(`a credit window is ${credit}; it must be 0 to ${MAX_BALANCE}, or ${UNLIMITED} for unlimited`);
      }
    }
  }

  // --- types ------------------------------------------------------------------------------------------------

  /** Know these types: they are declared to a peer when they are first used with it. */
  register(...types: EventType[]): void {
    for (const type of types) this.#known.set(type.typeId, type);
  }

  /** Know these types, and name them in every hello from now on. */
  declare(...types: EventType[]): void {
    this.register(...types);
    for (const type of types) {
      if (!this.#declared.includes(type)) this.#declared.push(type);
    }
    for (const { connection } of this.#links) {
      if (!connection.session.isAccepted) continue;
      connection.session.declare(types);
      connection.wake();
    }
  }

  // --- connections ------------------------------------------------------------------------------------------

  /** Serve on a Unix socket. A socket file that nobody serves any more is replaced. */
  async listen(path: string): Promise<void> {
    this.#checkRunning();
    const server = await listenOn(path, (socket) => {
      if (this.#stopped) socket.destroy();
      else this.attach(socket, null);
    });
    this.#servers.add(server);
  }

  /** Connect to the endpoint `expected` on a Unix socket; resolves when the connection is up. */
  async connect(path: string, expected: string): Promise<void> {
    this.#checkRunning();
    const socket = net.connect({ path, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    await this.attach(socket, expected);
  }

  /**
   * Talk to a peer over a stream that is open in both directions (`allowHalfOpen`). `expected` is the peer's name for
   * the side that opened the stream, null for the other. Resolves when the connection is up.
   */
  attach(stream: Duplex, expected: string | null): Promise<void> {
    this.#checkRunning();
    let settle!: Link["settle"];
    const up = new Promise<void>((resolve, reject) => {
      settle = (error) => (error === null ? resolve() : reject(error));
    });
    // Nobody waits for an acceptor's: it must not end the process.
    up.catch(() => undefined);
    let link!: Link;
    const settings: SessionSettings = {
      ...this.#options,
      role: expected === null ? "acceptor" : "connector",
      instance: this.#instance,
      expected,
      keepaliveMisses: 3,
      goodbyeMs: GOODBYE_MS,
    };
    const owner = (connection: Connection): Owner => {
      link = { connection, connector: expected !== null, expected, name: "", instance: new Uint8Array(0), up, settle };
      this.#links.add(link);
      return this.#ownerOf(link);
    };
    const connection = new Connection(stream, settings, owner, this.#own, this.#declared, this.#options.tooSlowMs);
    void connection.closed.then(() => this.#links.delete(link));
    return up;
  }

  #ownerOf(link: Link): Owner {
    return {
      typeOf: (typeId) => this.#known.get(typeId),
      subscribes: (typeId) => this.#all.size > 0 || this.#subscriptions.has(typeId),
      serves: (typeId) => this.#services.has(typeId),
      hello: (hello) => this.#hello(link, hello),
      up: () => {
        this.#change({ is: "up", peer: link.name });
        link.settle(null);
        for (const told of [...this.#survivors.values()]) told(link.name);
      },
      peerSubscriptions: (added, removed) => {
        for (const typeId of removed) this.#change({ is: "unsubscribed", peer: link.name, typeId });
        for (const typeId of added) this.#change({ is: "subscribed", peer: link.name, typeId });
      },
      acknowledged: () => undefined,
      event: (type, frame) => this.#deliver(link, new ReceivedEvent(type, link.name, frame)),
      request: (incoming) => this.#request(link, incoming),
      disabled: (type, difference) => this.#change({ is: "disabled", peer: link.name, type, difference }),
      ended: (end) => this.#ended(link, end),
    };
  }

  #names: Names = {
    own: () => this.name,
    held: (name) => this.#held.get(name),
    attempts: (name) =>
      [...this.#links].filter(
        (link) => link.expected === name && !link.connection.session.isAccepted && link.connection.session.end === null,
      ),
    hold: (link) => {
      this.#held.set(link.name, link);
      link.connection.accept(this.#wantedTypes(), this.#all.size > 0);
    },
    probeMs: PROBE_MS,
  };

  #hello(link: Link, hello: Hello): void {
    link.name = hello.name;
    link.instance = hello.instance;
    // A failure in here is ours; the peer is told, and the process goes on.
    decide(link, this.#names).catch((error: unknown) => link.connection.goodbye("internalError", String(error)));
  }

  #ended(link: Link, end: End): void {
    const { session } = link.connection;
    if (this.#held.get(link.name) === link) this.#held.delete(link.name);
    const { code, byPeer, text } = end;
    const wasUp = session.wasUp;
    if (wasUp) this.#change({ is: "down", peer: link.name, code, byPeer, text });
    else this.#change({ is: "refused", code, byPeer, text });
    const who = link.name || link.expected || "a peer";
    const error = new ConnectionClosed(code, byPeer, `${byPeer ? who : this.name} ended the connection: ${code} ${text}`);
    if (!wasUp && code === "duplicate" && link.expected !== null && link.expected !== this.name && !this.#stopped) {
      this.#awaitSurvivor(link, error);
    } else {
      link.settle(error);
    }
  }

  /** Of two connections that crossed the other one survives: it is up, or will be. */
  #awaitSurvivor(link: Link, error: ConnectionClosed): void {
    const name = link.expected!;
    if (this.peers.includes(name)) {
      link.settle(null);
      return;
    }
    const timer = setTimeout(() => {
      this.#survivors.delete(link);
      link.settle(error);
    }, this.#options.handshakeMs);
    this.#survivors.set(link, (cameUp) => {
      if (cameUp !== name && cameUp !== null) return;
      clearTimeout(timer);
      this.#survivors.delete(link);
      link.settle(cameUp === null ? error : null);
    });
  }

  /** Names of the peers whose connection is up. */
  get peers(): string[] {
    return this.#upLinks().map((link) => link.name);
  }

  #upLinks(): Link[] {
    return [...this.#held.values()].filter((link) => link.connection.session.isUp);
  }

  status(peer: string): PeerStatus | null {
    const link = this.#upLinks().find((other) => other.name === peer);
    if (link === undefined) return null;
    const { outbox, receivedEvents, skipped, late } = link.connection.session;
    const { sentEvents, queuedEvents } = outbox;
    const waitingForCredit = queuedEvents > 0 && outbox.eventsWindow?.open === false;
    return { name: peer, sentEvents, queuedEvents, waitingForCredit, receivedEvents, skipped, late };
  }

  /** End the connection to a peer. */
  async disconnect(peer: string): Promise<void> {
    const link = this.#held.get(peer);
    if (link === undefined) return;
    link.connection.goodbye("shutdown", `${this.name} disconnects`);
    await link.connection.closed;
  }

  /** End everything: what is queued is written first, for at most 2 s; streams of events end. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#servers].map((server) => closeServer(server)));
    await Promise.all(
      [...this.#links].map(async ({ connection }) => {
        if (connection.session.isUp) await connection.flushed(GOODBYE_MS);
        connection.goodbye("shutdown", `${this.name} stops`);
        await connection.closed;
      }),
    );
    for (const told of [...this.#survivors.values()]) told(null);
    for (const subscription of this.#everySubscription()) subscription.close();
  }

  #everySubscription(): Set<Subscription> {
    return new Set([...this.#all, ...[...this.#subscriptions.values()].flatMap((set) => [...set])]);
  }

  #checkRunning(): void {
    if (this.#stopped) throw new EndpointStopped(`${this.name} is stopped`);
  }

  // --- subscriptions ----------------------------------------------------------------------------------------

  /** Events of these types, from every peer. */
  subscribe<T extends Struct>(...types: [EventType<T>, ...EventType<T>[]]): Subscription<T> {
    this.#checkRunning();
    const subscription = new Subscription<T>(types, (ended) => this.#unsubscribe(ended as never));
    const plain: readonly EventType[] = types;
    this.register(...plain);
    const fresh = plain.filter((type) => !this.#wants(type.typeId));
    for (const { typeId } of plain) {
      const set = this.#subscriptions.get(typeId) ?? new Set();
      this.#subscriptions.set(typeId, set.add(subscription as never));
    }
    subscription.started(this.#tellSubscriptions(fresh, []));
    return subscription;
  }

  /** Events of every type that is known here. */
  subscribeAll(): Subscription {
    this.#checkRunning();
    const subscription = new Subscription([], (ended) => this.#unsubscribe(ended));
    this.#all.add(subscription);
    subscription.started(this.#tellSubscriptions([], []));
    return subscription;
  }

  #unsubscribe(subscription: Subscription): Promise<unknown> {
    this.#all.delete(subscription);
    for (const { typeId } of subscription.types) {
      const set = this.#subscriptions.get(typeId);
      set?.delete(subscription);
      if (set?.size === 0) this.#subscriptions.delete(typeId);
    }
    return this.#tellSubscriptions([], subscription.types.filter((type) => !this.#wants(type.typeId)));
  }

  #wants(typeId: bigint): boolean {
    return this.#subscriptions.has(typeId) || this.#services.has(typeId);
  }

  #wantedTypes(): EventType[] {
    return [...this.#subscriptions.keys(), ...this.#services.keys()].map((typeId) => this.#known.get(typeId)!);
  }

  #tellSubscriptions(add: readonly EventType[], remove: readonly EventType[]): Promise<unknown> {
    const all = this.#all.size > 0;
    const told = [...this.#links].filter(({ connection }) => connection.session.isAccepted);
    return Promise.all(told.map(({ connection }) => connection.subscribe(add, remove, all)));
  }

  #deliver(link: Link, event: ReceivedEvent): void {
    const subscriptions = [...(this.#subscriptions.get(event.type.typeId) ?? []), ...this.#all];
    const { connection } = link;
    const delivery = new Delivery(event, subscriptions.length, () => {
      connection.session.eventTaken(event.size);
      connection.wake();
    });
    for (const subscription of subscriptions) subscription.deliver(delivery);
  }

  // --- publishing and asking --------------------------------------------------------------------------------

  /** The peers that are to get content of this type. */
  #receivers(type: EventType, to?: string): Link[] {
    return this.#upLinks().filter(({ name, connection: { session } }) => {
      const asked = to === undefined ? session.wants(type.typeId) : name === to;
      return asked && session.table.difference(type) === null;
    });
  }

  /**
   * Send an event to every peer that subscribes to it. Resolves when it is queued for all of them: where a queue is
   * full, this waits. Nothing is dropped but what exceeds a peer's frame limit (a change tells of it); throws if it
   * exceeds that of all.
   */
  async broadcast<T extends Struct>(type: EventType<T>, fill: (event: T) => void, options: { to?: string } = {}): Promise<void> {
    this.#checkRunning();
    const plain: EventType = type;
    this.register(type);
    const { segments, size } = buildMessage(type.struct, fill);
    const receivers = this.#receivers(plain).filter(({ name }) => options.to === undefined || name === options.to);
    if (receivers.length === 0) return;
    const frame = encodeFrame(this.#own.numberOf(plain), EVENT, 0n, segments);
    const able = receivers.filter(({ connection }) => size <= connection.session.peer!.frameLimit);
    if (able.length === 0) {
      const limits = receivers.map(({ name, connection }) => `${name}: ${connection.session.peer!.frameLimit}`);
      throw new PeerError(`a ${type.name} of ${size} bytes exceeds the frame limit of every receiver (${limits.join(", ")})`);
    }
    for (const { name, connection } of receivers) {
      const limit = connection.session.peer!.frameLimit;
      if (size > limit) this.#change({ is: "tooLarge", peer: name, type, size, limit });
    }
    const waiting = able.map(({ connection }) => {
      connection.session.declare([plain]);
      return connection.send(type.typeId, frame);
    });
    await Promise.all(waiting);
    if (able.some(({ connection }) => connection.session.outbox.queuedBytes > POLITE_BYTES)) await turn();
  }

  /**
   * Ask the peers that subscribe to the type, or the one in `options.to` whatever it subscribes to; the first response wins. Throws RequestFailed when all have failed,
   * RequestLost when all are gone, RequestTimeout, NoResponder, or the signal's reason.
   */
  async request<Q extends Struct, A extends Struct>(
    type: EventType<Q>,
    answer: EventType<A>,
    fill: (request: Q) => void,
    options: RequestOptions = {},
  ): Promise<ReceivedEvent<A>> {
    this.#checkRunning();
    this.register(type, answer);
    const plain: EventType = type;
    const receivers = this.#receivers(plain, options.to);
    if (receivers.length === 0) {
      const who = options.to ?? "no connected peer";
      throw new NoResponder(`${who} is no responder to ${type.name}: not connected, not subscribed, or of another layout`);
    }
    for (const { connection } of receivers) connection.session.declare([plain, answer]);
    const message = buildMessage(type.struct, fill);
    const timeoutMs = options.timeoutMs ?? this.#options.requestTimeoutMs;
    return await ask(receivers, this.#own.numberOf(plain), message, type.name, answer, timeoutMs, options.signal);
  }

  // --- answering --------------------------------------------------------------------------------------------

  /**
   * Answer requests of a type. `handler` fills the answer; what it throws becomes `failed`. Handlers run concurrently.
   */
  serve<Q extends Struct, A extends Struct>(
    type: EventType<Q>,
    answer: EventType<A>,
    handler: Parameters<typeof handle<Q, A>>[2],
  ): Service {
    this.#checkRunning();
    const { typeId } = type;
    const plain: EventType = type;
    if (this.#services.has(typeId)) throw new UsageError(`${this.name} serves ${type.name} already`);
    this.register(type, answer);
    const fresh = this.#wants(typeId) ? [] : [plain];
    const gate = new Gate();
    const run = handle(type, answer, handler);
    this.#services.set(typeId, (...request) => gate.pass(() => run(...request)));
    let told = this.#tellSubscriptions(fresh, []);
    return {
      acknowledged: async () => {
        await told;
      },
      pause: () => gate.pause(),
      resume: () => gate.resume(),
      close: () => {
        // Those that wait reach the handler: they were accepted while there was one.
        gate.resume();
        this.#services.delete(typeId);
        told = this.#tellSubscriptions([], this.#wants(typeId) ? [] : [plain]);
      },
    };
  }

  #request(link: Link, incoming: Incoming): void {
    this.#services.get(incoming.type.typeId)!(link.connection, link.name, this.#own, incoming);
  }
}
