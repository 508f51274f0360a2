// Work that runs off the event loop on behalf of one promise: made, reported and settled by the
// JavaScript thread of its environment, executed by one of that environment's job threads (env.hpp).
#pragma once
#include <napi.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

#include "../engine/plan.hpp"

namespace spr2q {

class Env;

class Job : public RunWatch {
 public:
  using Work = std::function<RunResult(RunWatch&)>;

  // `work` may point into what `kept` refers to: it is held until the job is settled. `control`,
  // where not null, is a JavaScript array whose first entry, once not zero, stops the job.
  // `on_progress`, where it is a function, is called with the steps done, at most every 50 ms.
  // `memory` bytes are reported to the garbage collector while the job lives.
  Job(Napi::Env env, Work work, Napi::Object kept, const int32_t* control, Napi::Value on_progress,
      int64_t memory);
  ~Job() override;

  // Of the scope that made the job.
  napi_value promise() const { return promise_; }

  // JavaScript thread: tells progress; resolves to whether the work was finished, or rejects with an
  // Error that has the code of its RunResult.
  void report();
  void settle();

  // Any thread.
  void stop() { stopped_ = true; }
  bool stopped() const override;

  // Job thread.
  void execute(Env& env);
  void step_done(int64_t done) override;

 private:
  using Clock = std::chrono::steady_clock;

  napi_env env_;
  napi_deferred deferred_ = nullptr;
  napi_value promise_ = nullptr;
  Work work_;
  Napi::ObjectReference kept_;
  Napi::FunctionReference on_progress_;
  const int32_t* control_;
  int64_t memory_;
  Env* owner_ = nullptr;
  Clock::time_point told_ = Clock::now();
  RunResult result_;
  std::atomic<int64_t> done_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace spr2q
