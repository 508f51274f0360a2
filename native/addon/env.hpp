// What belongs to one JavaScript environment (the main thread, or a worker): the threads that run its
// jobs and the inbox through which they report. No job uses libuv's threads: file reads and DNS look-ups
// of the application would wait behind it.
//
// Ownership and order, so that an environment may end at any moment (worker.terminate(), process.exit()):
//   - one thread-safe function per environment, never one per job; job threads reach it only under the
//     inbox's mutex and only while the inbox is open;
//   - it keeps the process alive while jobs live, and not otherwise;
//   - the cleanup hook is added after it, so it runs before it goes: it closes the inbox, stops the
//     jobs, joins the threads and lets the jobs go;
//   - the last environment also ends the threads of the kernels' pool, since the library may be
//     unloaded behind it.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "job.hpp"

namespace spr2q {

class Env {
 public:
  explicit Env(Napi::Env env);
  Env(const Env&) = delete;
  Env& operator=(const Env&) = delete;

  static Env& of(Napi::Env env) { return *env.GetInstanceData<Env>(); }

  // JavaScript thread: queues a job behind those that wait. It is settled by this thread later.
  void submit(std::unique_ptr<Job> job);

  // Job thread: asks for a call of the job's report().
  void post_progress(Job* job);

 private:
  void work();
  void post_finished(Job* job);
  void wake();
  void drain();
  void close();
  bool start_thread();

  napi_env env_;
  napi_threadsafe_function inbox_ = nullptr;
  std::unordered_set<Job*> live_;  // JavaScript thread only

  std::mutex inbox_mutex_;
  bool open_ = true;
  bool woken_ = false;
  std::vector<Job*> finished_, progressed_;

  std::mutex queue_mutex_;
  std::condition_variable queue_moved_;
  std::deque<Job*> queue_;
  size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace spr2q
