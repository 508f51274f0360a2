// The thread pool of all kernels. parallel_for splits [0, n) into fixed chunks of `grain` items
// and calls body(begin, end) once per chunk, on any thread. Chunks depend on n and grain alone, so
// a kernel that keeps one partial result per chunk and adds them in chunk order gives the same
// bits on any number of threads. A parallel_for inside a body runs serially.
#pragma once
#include <cstdint>
#include <cstddef>
#include <type_traits>

namespace spr2q {

using ChunkFunction = void (*)(void* context, int64_t begin, int64_t end);

void parallel_chunks(int64_t n, int64_t grain, ChunkFunction function, void* context);

template <class Body>
static inline void parallel_for(int64_t n, int64_t grain, Body&& body) {
  using Plain = typename std::remove_reference<Body>::type;
  parallel_chunks(
      n, grain,
      [](void* context, int64_t begin, int64_t end) {
        (*static_cast<Plain*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Number of threads that parallel_for uses, the caller's included.
int thread_count();
void set_thread_count(int count);

// Ends the pool's threads; the next parallel_for starts them again. For the moment before the library
// may be unloaded: a thread that sleeps in its code would not survive that.
void rest_threads();

// Memory of this thread, 64-byte aligned, kept until the thread ends; `slot` (0..15) separates
// buffers that live at the same time. The contents are whatever the last user left.
void* scratch_bytes(int slot, size_t bytes);

template <class T>
static inline T* scratch(int slot, int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace spr2q
