/**
 * Which pages may use the server. It has no passwords, so a page of another site, opened in a browser
 * that can reach it, could use it too: such requests name their site in Origin, and a name that was
 * pointed at a loopback address (DNS rebinding) shows in Host.
 */
import type { IncomingMessage } from "node:http";
import { expected } from "../errors.ts";

const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

/** Host without its port, in small letters. */
function hostOf(text: string): string {
  return text.toLowerCase().replace(/:\d+$/, "");
}

/** True for addresses that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.includes(host.toLowerCase()) || host === "::1";
}

/**
 * ERR_FORBIDDEN for a request from a page of another site, or, where the server listens on loopback,
 * under a name that is neither loopback's nor in `allowed`.
 */
export function checkOrigin(req: IncomingMessage, host: string, allowed: readonly string[]): void {
  const { host: named = "", origin } = req.headers;
  const names = allowed.map((name) => name.toLowerCase());
  if (isLoopback(host) && ![...LOOPBACK, ...names].includes(hostOf(named))) {
    const fix = "The server must be started with --allow-host for other names.";
    throw expected("ERR_FORBIDDEN", "Host", [...LOOPBACK, ...names].join(", "), named, fix);
  }
  if (origin === undefined) return;
  const from = URL.canParse(origin) ? new URL(origin).host : origin;
  if (from === named.toLowerCase() || names.includes(hostOf(from))) return;
  const fix = "The server must be started with --allow-host for pages of other sites.";
  throw expected("ERR_FORBIDDEN", "Origin", "a page of this server", origin, fix);
}
