// See env.hpp.
#include "env.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "../core/arena.hpp"
#include "../core/pool.hpp"

namespace spr2q {
namespace {

// Environments of the process that are open.
std::mutex count_mutex;
int open_environments = 0;

// Jobs of one environment that may run side by side: each uses the kernels' pool by turns.
size_t most_threads() { return static_cast<size_t>(std::max(2, thread_count())); }

}  // namespace

Env::Env(Napi::Env env) : env_(env) {
  const auto drain_inbox = [](napi_env alive, napi_value, void* self, void*) {
    if (alive) static_cast<Env*>(self)->drain();
  };
  const napi_status made = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "spr2q"), 0, 1, nullptr, nullptr, this,
      drain_inbox, &inbox_);
  if (made != napi_ok) throw Napi::Error::New(env, "spr2q: no inbox for this environment");
  napi_unref_threadsafe_function(env, inbox_);
  {
    std::lock_guard<std::mutex> lock(count_mutex);
    ++open_environments;
  }
  napi_add_env_cleanup_hook(env, [](void* self) { static_cast<Env*>(self)->close(); }, this);
}

bool Env::start_thread() {
  try {
    threads_.emplace_back([this] { work(); });
    return true;
  } catch (const std::system_error&) {
    return !threads_.empty();  // those there are take the job in turn
  }
}

void Env::submit(std::unique_ptr<Job> job) {
  std::lock_guard<std::mutex> lock(queue_mutex_);
  if (queue_.size() >= idle_ && threads_.size() < most_threads() && !start_thread()) {
    throw Napi::Error::New(env_, "the system gives no thread to run the job");
  }
  if (live_.empty()) napi_ref_threadsafe_function(env_, inbox_);
  live_.insert(job.get());
  queue_.push_back(job.release());
  queue_moved_.notify_one();
}

void Env::work() {
  for (;;) {
    Job* job = nullptr;
    {
      std::unique_lock<std::mutex> lock(queue_mutex_);
      ++idle_;
      queue_moved_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      --idle_;
      if (stopping_) return;
      job = queue_.front();
      queue_.pop_front();
    }
    job->execute(*this);
    post_finished(job);
  }
}

void Env::post_progress(Job* job) {
  std::lock_guard<std::mutex> lock(inbox_mutex_);
  if (std::find(progressed_.begin(), progressed_.end(), job) != progressed_.end()) return;
  progressed_.push_back(job);
  wake();
}

void Env::post_finished(Job* job) {
  std::lock_guard<std::mutex> lock(inbox_mutex_);
  finished_.push_back(job);
  wake();
}

// Under the inbox's mutex.
void Env::wake() {
  if (!open_ || woken_) return;
  woken_ = napi_call_threadsafe_function(inbox_, nullptr, napi_tsfn_nonblocking) == napi_ok;
}

// JavaScript thread. A report may run JavaScript that submits jobs.
void Env::drain() {
  std::vector<Job*> progressed, finished;
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    woken_ = false;
    progressed.swap(progressed_);
    finished.swap(finished_);
  }
  Napi::Env env(env_);
  for (Job* job : progressed) {
    Napi::HandleScope scope(env);
    job->report();
  }
  for (Job* job : finished) {
    Napi::HandleScope scope(env);
    const std::unique_ptr<Job> done(job);
    live_.erase(job);
    if (live_.empty()) napi_unref_threadsafe_function(env_, inbox_);
    done->settle();
  }
}

void Env::close() {
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    open_ = false;
  }
  for (Job* job : live_) job->stop();
  {
    std::lock_guard<std::mutex> lock(queue_mutex_);
    stopping_ = true;
  }
  queue_moved_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (Job* job : live_) delete job;
  live_.clear();
  std::lock_guard<std::mutex> lock(count_mutex);
  if (--open_environments > 0) return;
  rest_threads();
  drop_spare();
}

}  // namespace spr2q
