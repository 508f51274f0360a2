// A pool of kept threads with one job at a time. See pool.hpp for the contract.
#include "pool.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "arena.hpp"

namespace spr2q {
namespace {

struct Job {
  ChunkFunction function;
  void* context;
  int64_t n;
  int64_t grain;
  std::atomic<int64_t> next{0};
};

thread_local bool inside_parallel_region = false;

void run_chunks(Job& job) {
  inside_parallel_region = true;
  for (;;) {
    const int64_t begin = job.next.fetch_add(job.grain);
    if (begin >= job.n) break;
    const int64_t end = begin + job.grain < job.n ? begin + job.grain : job.n;
    job.function(job.context, begin, end);
  }
  inside_parallel_region = false;
}

// How often a thread looks before it sleeps: some 50 us. A plan starts thousands of short jobs, and to
// wake a sleeping thread takes longer than many of them.
constexpr int kLooks = 2000;

template <class Condition>
bool spin_until(Condition condition) {
  for (int i = 0; i < kLooks; ++i) {
    if (condition()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  return condition();
}

// The state of the pool in one word, so that a thread joins a job in one step or not at all: how many
// threads are in the job (16 bits), whether it may still be joined, and its number.
constexpr uint64_t kOpen = uint64_t{1} << 16, kNumber = uint64_t{1} << 17;
inline uint64_t inside(uint64_t state) { return state & (kOpen - 1); }
inline uint64_t number(uint64_t state) { return state / kNumber; }

// Who is about to sleep says so and looks once more; who has news publishes it and then looks for
// sleepers. All of that is sequentially consistent, so one of the two sees the other.
//
// The caller waits for the threads that have joined, not for those that never came: on a machine with
// other work a thread may be off its core for milliseconds, and the caller has done its share by then.
class Pool {
 public:
  ~Pool() { resize(1); }

  int size() const { return size_; }

  void resize(int count) {
    std::lock_guard<std::mutex> turn(turn_);
    stop();
    size_ = count;
  }

  // Ends the threads; the next job starts them again.
  void rest() {
    std::lock_guard<std::mutex> turn(turn_);
    stop();
  }

  void run(Job& job) {
    std::lock_guard<std::mutex> turn(turn_);  // one job at a time; others wait here
    if (!started_) start();
    job_ = &job;
    state_ = (number(state_) + 1) * kNumber + kOpen;
    if (sleepers_ > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    run_chunks(job);
    state_ -= kOpen;
    const auto finished = [this] { return inside(state_) == 0; };
    if (spin_until(finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    waiting_ = true;
    done_.wait(lock, finished);
    waiting_ = false;
  }

 private:
  // Where the system refuses more threads, the job goes on with those there are.
  void start() {
    started_ = true;
    try {
      for (int i = 1; i < size_; ++i) {
        threads_.emplace_back([this, seen = number(state_)] { work(seen); });
      }
    } catch (const std::system_error&) {
    }
  }

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    stopping_ = started_ = false;
  }

  // Joins the newest job if it is still open; `seen` becomes its number either way.
  bool join(uint64_t* seen) {
    uint64_t state = state_;
    bool joined = false;
    while (state & kOpen && !joined) joined = state_.compare_exchange_weak(state, state + 1);
    *seen = number(state);
    return joined;
  }

  void work(uint64_t seen) {
    const auto called = [&] { return stopping_ || number(state_) != seen; };
    for (;;) {
      if (!spin_until(called)) {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleepers_;
        wake_.wait(lock, called);
        --sleepers_;
      }
      if (stopping_) return;
      if (!join(&seen)) continue;
      run_chunks(*job_);
      if (inside(--state_) == 0 && waiting_) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  bool started_ = false;  // guarded by turn_
  Job* job_ = nullptr;  // written before state_ opens a job, read by those who have joined it
  std::atomic<int> size_{1};
  std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false}, waiting_{false};
};

// Cores that this process may use: a container is often held to some of the machine's.
int available_cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

Pool& pool() {
  // Never destroyed: joining threads while the process exits can deadlock in the loader.
  static Pool* instance = [] {
    Pool* made = new Pool();
    made->resize(available_cores());
    return made;
  }();
  return *instance;
}

struct Scratch {
  void* data[16] = {};
  size_t bytes[16] = {};
  ~Scratch() {
    for (int slot = 0; slot < 16; ++slot) {
      std::free(data[slot]);
      count_bytes(-static_cast<int64_t>(bytes[slot]));
    }
  }
};

}  // namespace

void parallel_chunks(int64_t n, int64_t grain, ChunkFunction function, void* context) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  if (inside_parallel_region || n <= grain || pool().size() == 1) {
    for (int64_t begin = 0; begin < n; begin += grain) {
      function(context, begin, begin + grain < n ? begin + grain : n);
    }
    return;
  }
  Job job;
  job.function = function;
  job.context = context;
  job.n = n;
  job.grain = grain;
  pool().run(job);
}

int thread_count() { return pool().size(); }

void set_thread_count(int count) { pool().resize(count < 1 ? 1 : count); }

void rest_threads() { pool().rest(); }

void* scratch_bytes(int slot, size_t bytes) {
  thread_local Scratch scratch;
  if (scratch.bytes[slot] < bytes) {
    std::free(scratch.data[slot]);
    count_bytes(-static_cast<int64_t>(scratch.bytes[slot]));
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    scratch.data[slot] = std::aligned_alloc(64, rounded);
    scratch.bytes[slot] = scratch.data[slot] ? rounded : 0;
    if (!scratch.data[slot]) std::abort();  // kilobytes to a few megabytes: nothing could go on
    count_bytes(static_cast<int64_t>(rounded));
  }
  return scratch.data[slot];
}

}  // namespace spr2q
