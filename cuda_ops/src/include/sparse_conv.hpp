// Tables of sparse convolutions: which row belongs to which, once for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

/// A table (rows, offsets) that holds for each row and kernel offset a row of the other side, or a negative number for none; the transposed
/// one (num_others, offsets) says the same from the other side.
struct NeighbourTable {
  const int32_t* rows;
  int64_t offsets, num_others;

  /// Place in the transposed table of what `row` has at offset k, or -1: no neighbour, or one out of range.
  OPS_HOST_DEVICE int64_t transposed_place(int64_t row, int64_t k) const {
    const int64_t other = rows[row * offsets + k];
    return other >= 0 && other < num_others ? other * offsets + k : -1;
  }
};

}  // namespace ops
