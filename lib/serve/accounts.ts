/** What a server counts, and GET /metrics shows. */
import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import type { JobQueue } from "./job_queue.ts";
import { Counter, gaugeLines, Histogram } from "./metrics.ts";

/** Upper bounds in seconds, from a small picture on a fast machine to a large one on a slow one. */
const SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100];

/** Milliseconds between two looks at the event loop, which the histogram counts as delay. */
const RESOLUTION_MS = 10;

export class Accounts {
  readonly requests: Counter = new Counter(
    "spr2q_requests_total",
    "Requests by path and status; status 0: the client left.",
    ["path", "status"],
  );
  readonly jobs: Counter = new Counter("spr2q_jobs_total", "Images by model and outcome.", [
    "model",
    "outcome",
  ]);
  readonly pixels: Counter = new Counter("spr2q_pixels_total", "Pixels of the results.", ["model"]);
  readonly received: Counter = new Counter("spr2q_received_bytes_total", "Bytes of the uploads.");
  readonly sent: Counter = new Counter("spr2q_sent_bytes_total", "Bytes of the results.");
  readonly run: Histogram = new Histogram("spr2q_run_seconds", "Time in the network.", SECONDS, [
    "model",
  ]);
  readonly wait: Histogram = new Histogram("spr2q_wait_seconds", "Time in the queue.", SECONDS);
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({
    resolution: RESOLUTION_MS,
  });
  readonly #began: number = Date.now() / 1000;

  constructor() {
    this.#delay.enable();
  }

  close(): void {
    this.#delay.disable();
  }

  /** The text of GET /metrics; the event loop's delay is that since the last call. */
  text(queue: JobQueue, draining: boolean): string {
    const delay = (this.#delay.percentile(99) / 1e6 - RESOLUTION_MS) / 1000;
    this.#delay.reset();
    const counted = [this.requests, this.jobs, this.pixels, this.received, this.sent];
    const lines = [
      ...counted.flatMap((counter) => counter.lines()),
      ...this.run.lines(),
      ...this.wait.lines(),
      ...gaugeLines("spr2q_jobs_running", "Images at work.", queue.running),
      ...gaugeLines("spr2q_jobs_queued", "Images that wait.", queue.queued),
      ...gaugeLines("spr2q_draining", "1 while the server ends.", draining ? 1 : 0),
      ...gaugeLines(
        "nodejs_eventloop_delay_p99_seconds",
        "99th percentile of the event loop's delay since the last scrape.",
        Number.isFinite(delay) ? Math.max(0, delay) : 0,
      ),
      ...gaugeLines("process_resident_memory_bytes", "Resident memory.", process.memoryUsage.rss()),
      ...gaugeLines("process_start_time_seconds", "Start of the server.", this.#began),
    ];
    return `${lines.join("\n")}\n`;
  }
}
