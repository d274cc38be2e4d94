/** Unix sockets. */

import { unlink } from "node:fs/promises";
import net from "node:net";
import { UsageError } from "../errors.js";

function start(path: string, accept: (socket: net.Socket) => void): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true }, accept);
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.off("error", reject);
      // Such as too many open files: the connections that there are go on.
      server.on("error", () => undefined);
      resolve(server);
    });
  });
}

/** Whether somebody serves on the socket file. */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED"));
  });
}

export async function listenOn(path: string, accept: (socket: net.Socket) => void): Promise<net.Server> {
  try {
    return await start(path, accept);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    if (await isServed(path)) throw new UsageError(`${path} is served by another process; end it, or take another path`);
    await unlink(path);
    return await start(path, accept);
  }
}

/** Stop to accept; connections go on. */
export function closeServer(server: net.Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    // It waits for connections to end, which are not its business.
    setImmediate(resolve);
  });
}
