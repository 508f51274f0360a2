// What operating systems call by different names: aligned memory, pages, and libraries opened at run
// time. Nothing else in core/, engine/, ops/ and cpu/ asks which system it is on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace spr2q {

// A block of `bytes` on a boundary of 64 bytes, contents undefined; null where there is no memory.
void* aligned_block(size_t bytes);
void free_aligned(void* block);

// Pages are mapped on boundaries of this many bytes, so that the system may use one large page.
constexpr int64_t kHugePage = 2 << 20;

struct Pages {
  uint8_t* data = nullptr;
  int64_t bytes = 0;
};

// Fresh pages, at least `bytes`; data is null where the system has none.
Pages map_pages(int64_t bytes);
void unmap_pages(const Pages& pages);

// A shared library and its functions; null with the system's reason where that fails.
void* open_library(const char* path, std::string& why);
void* library_symbol(void* library, const char* name);
void close_library(void* library);

// Keeps the library that holds this code loaded to the end of the process, where its threads' memory
// could not be taken down in the middle of it (Windows: the last worker that ends would hang).
void keep_loaded();

}  // namespace spr2q
