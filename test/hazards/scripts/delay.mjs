/**
 * Looks at the event loop of the process that imports it. Asked by its parent, it says how late timers
 * were since it was asked last, in milliseconds.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";

const RESOLUTION = 1; // ms; the histogram counts from one timer to the next, this included

/** A histogram that is on, and what it has seen. */
export function watch() {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION });
  histogram.enable();
  const ms = (ns) => ns / 1e6 - RESOLUTION;
  const seen = () => {
    const [p50, p99] = [50, 99].map((p) => ms(histogram.percentile(p)));
    return { p50, p99, max: ms(histogram.max), count: histogram.count };
  };
  return { histogram, seen };
}

if (process.send) {
  const { histogram, seen } = watch();
  process.on("message", () => {
    process.send(seen());
    histogram.reset();
  });
  process.channel.unref(); // the server ends when it has nothing else to do
}
