// What plans keep of a model: read-only blocks, one copy in the process of each content. A plan for
// another size of tile, or in another worker thread, names the same block instead of holding its own.
#pragma once
#include <cstdint>
#include <memory>

namespace spr2q {

// Read-only bytes on a 64-byte boundary, freed with the last who holds them.
struct Constant {
  const uint8_t* data;
  int64_t bytes;
};

// The block with the contents of `data`: one that is held already, or else a copy. Null where the
// system has no memory for it. Any thread may call it.
std::shared_ptr<const Constant> share_constant(const uint8_t* data, int64_t bytes);

// Bytes of all blocks held now.
int64_t constant_bytes();

}  // namespace spr2q
