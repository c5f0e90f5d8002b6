// Sites and tables of sparse convolutions on the CPU. Sorted sites are read line by line (the cells along x with the same batch, z and y): a
// line of outputs meets at most kernel_z * kernel_y lines of inputs, and inside of it a row of marks as wide as the grid tells who is there.
#include "sparse_indices.hpp"

#include <algorithm>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

constexpr int64_t kSitesPerThread = 4096;

/// Sites in order, cut into lines.
struct Lines {
  explicit Lines(int64_t capacity) : line(capacity), begin(capacity + 1), x(capacity), row(capacity) {}
  Buffer<int64_t> line;   // number of the i-th line that has sites, ascending
  Buffer<int32_t> begin;  // its sites are begin[i] .. begin[i + 1]
  Buffer<int32_t> x, row;  // of each site: its place in the line, ascending, and the row that it came from
  int64_t num_lines = 0, num_sites = 0;

  void append(int64_t line_number, int64_t place, int64_t from_row) {
    if (num_lines == 0 || line[num_lines - 1] != line_number) {
      line[num_lines] = line_number;
      begin[num_lines++] = static_cast<int32_t>(num_sites);
    }
    x[num_sites] = static_cast<int32_t>(place);
    row[num_sites++] = static_cast<int32_t>(from_row);
    begin[num_lines] = static_cast<int32_t>(num_sites);
  }
};

/// Read the input sites. Of several rows at one site the first counts. Sites outside and repeated ones are counted.
void read_inputs(const ConvGrid& grid, const int32_t* coords, int64_t num, int64_t columns, int threads, Lines& lines, int64_t* counters) {
  const int64_t nowhere = grid.in_lines() * grid.x.in;  // sorts last
  Buffer<int64_t> cell(num);
  std::vector<int64_t> outside(static_cast<std::size_t>(threads), 0);
  std::vector<char> is_sorted(static_cast<std::size_t>(threads), 1);
  parallel_ranges(num, threads, [&](int thread, int64_t begin, int64_t end) {
    int64_t num_outside = 0;
    for (int64_t i = begin; i < end; ++i) {
      const Site s = grid.site(coords + i * columns, columns);
      num_outside += s.batch == kNoSite;
      cell[i] = s.batch < 0 ? nowhere : grid.in_line(s.batch, s.z, s.y) * grid.x.in + s.x;
      if (i > begin && cell[i] < cell[i - 1]) is_sorted[static_cast<std::size_t>(thread)] = 0;
    }
    outside[static_cast<std::size_t>(thread)] = num_outside;
  });
  bool in_order = true;
  counters[kNumSitesOutside] = counters[kNumDuplicates] = 0;
  for (int t = 0; t < threads; ++t) {
    counters[kNumSitesOutside] += outside[static_cast<std::size_t>(t)];
    const int64_t begin = part_begin(num, threads, t);
    in_order &= is_sorted[static_cast<std::size_t>(t)] && (begin == 0 || begin >= num || cell[begin] >= cell[begin - 1]);
  }
  int64_t last = -1, line = -1, line_end = 0;  // line_end: the first cell after the line, so that only new lines cost a division
  const auto append = [&](int64_t i) {
    if (cell[i] == nowhere) return;
    if (cell[i] == last) {
      ++counters[kNumDuplicates];
      return;
    }
    last = cell[i];
    if (last >= line_end) line = last / grid.x.in, line_end = (line + 1) * grid.x.in;
    lines.append(line, last - (line_end - grid.x.in), i);
  };
  if (in_order) {
    for (int64_t i = 0; i < num; ++i) append(i);
    return;
  }
  StableSort order(num);
  order.sort([&](int64_t i) { return static_cast<uint64_t>(cell[i]); }, bits_of(static_cast<uint64_t>(nowhere)), threads);
  for (int64_t i = 0; i < num; ++i) append(order.index(i));
}

/// For outputs in ascending lines: the lines of inputs that an output line meets, by pointers that only move forward.
class InputLines {
 public:
  InputLines(const ConvGrid& grid, const Lines& inputs) : grid_(grid), inputs_(inputs), at_(kernel_lines(grid), 0), is_new_(true) {}

  /// body(tap of z and y, first site, end) for each input line with sites that output line `line` meets.
  template <class Body>
  void meet(int64_t line, Body&& body) {
    if (line >= plane_end_ || is_new_) {
      const int64_t plane = line / grid_.y.out();
      batch_ = plane / grid_.z.out(), z_ = plane - batch_ * grid_.z.out();
      plane_begin_ = plane * grid_.y.out(), plane_end_ = plane_begin_ + grid_.y.out();
    }
    const int64_t y = line - plane_begin_;
    std::size_t tap = 0;
    for (int64_t kz = 0; kz < grid_.z.kernel; ++kz) {
      const int64_t in_z = grid_.z.input(z_, kz);
      for (int64_t ky = 0; ky < grid_.y.kernel; ++ky, ++tap) {
        const int64_t in_y = grid_.y.input(y, ky);
        if (in_z < 0 || in_y < 0) continue;
        const int64_t want = grid_.in_line(batch_, in_z, in_y);
        int64_t& at = at_[tap];
        if (is_new_ || (at < inputs_.num_lines && inputs_.line[at] < want)) seek(at, want);
        if (at < inputs_.num_lines && inputs_.line[at] == want) body(static_cast<int64_t>(tap), inputs_.begin[at], inputs_.begin[at + 1]);
      }
    }
    is_new_ = false;
  }

 private:
  static std::size_t kernel_lines(const ConvGrid& grid) { return static_cast<std::size_t>(grid.z.kernel) * static_cast<std::size_t>(grid.y.kernel); }

  /// The first line at or after `at` that is not below `want`: steps that double, then halving.
  void seek(int64_t& at, int64_t want) const {
    const int64_t* line = &inputs_.line[0];
    int64_t step = 1, high = at;
    while (high < inputs_.num_lines && line[high] < want) at = high + 1, high += step, step *= 2;
    at = std::lower_bound(line + at, line + std::min(high, inputs_.num_lines), want) - line;
  }

  const ConvGrid grid_;
  const Lines& inputs_;
  std::vector<int64_t> at_;
  bool is_new_;
  int64_t batch_ = 0, z_ = 0, plane_begin_ = 0, plane_end_ = 0;
};

/// The lines that have outputs, ascending and each once.
std::vector<int64_t> output_lines(const ConvGrid& grid, const Lines& inputs, int threads) {
  std::vector<int64_t> found;
  for (int64_t i = 0; i < inputs.num_lines; ++i) {
    const int64_t plane = inputs.line[i] / grid.y.in, batch = plane / grid.z.in;
    const int64_t y = inputs.line[i] - plane * grid.y.in, z = plane - batch * grid.z.in;
    for (int64_t kz = 0; kz < grid.z.kernel; ++kz) {
      const int64_t out_z = grid.z.output(z, kz);
      for (int64_t ky = 0; out_z >= 0 && ky < grid.y.kernel; ++ky) {
        const int64_t out_y = grid.y.output(y, ky);
        if (out_y >= 0) found.push_back(grid.out_line(batch, out_z, out_y));
      }
    }
  }
  const int64_t count = static_cast<int64_t>(found.size());
  StableSort order(count);
  order.sort([&](int64_t i) { return static_cast<uint64_t>(found[static_cast<std::size_t>(i)]); },
             bits_of(static_cast<uint64_t>(grid.out_lines())), threads);
  std::vector<int64_t> lines;
  lines.reserve(found.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t line = found[static_cast<std::size_t>(order.index(i))];
    if (lines.empty() || lines.back() != line) lines.push_back(line);
  }
  return lines;
}

/// A bit for each cell of a line.
class Marks {
 public:
  explicit Marks(int64_t width) : words_(static_cast<std::size_t>((width + 63) / 64), 0) {}

  void set(int64_t x) {
    const int64_t word = x / 64;
    words_[static_cast<std::size_t>(word)] |= uint64_t{1} << (x & 63);
    first_ = std::min(first_, word), last_ = std::max(last_, word);
  }

  /// body(x) for each mark, ascending; afterwards there is none.
  template <class Body>
  void take(Body&& body) {
    for (int64_t word = first_; word <= last_; ++word) {
      uint64_t bits = words_[static_cast<std::size_t>(word)];
      for (; bits; bits &= bits - 1) body(word * 64 + __builtin_ctzll(bits));
      words_[static_cast<std::size_t>(word)] = 0;
    }
    first_ = INT64_MAX, last_ = -1;
  }

 private:
  std::vector<uint64_t> words_;
  int64_t first_ = INT64_MAX, last_ = -1;
};

/// Who is at each cell of an output line. Cells beyond its ends, as far as a kernel reaches, are nobody's.
class RowAt {
 public:
  RowAt(int64_t width, int64_t reach) : rows_(static_cast<std::size_t>(width + 2 * reach), -1), zero_(rows_.data() + reach) {}
  int32_t& operator[](int64_t x) { return zero_[x]; }

  /// Where in a table (rows, taps) the tap of the row at x stands. For nobody it is a place that is never read: a neighbour is written
  /// without a branch, because whether there is somebody cannot be foretold.
  int32_t* place(int64_t x, int32_t* table, int64_t taps, int64_t tap) {
    const int64_t row = zero_[x];
    int32_t* places[2] = {table + std::max<int64_t>(row, 0) * taps + tap, &nobody_};
    return places[row < 0];
  }

 private:
  std::vector<int32_t> rows_;
  int32_t* zero_;
  int32_t nobody_ = -1;
};

/// body(tap, output) for each tap of the axis through which an output looks at input x. kStride is the stride, where a known one saves a
/// division, else 0. With stride 1 and 2 the output may lie beyond the axis, by less than the kernel.
template <int kStride, class Body>
inline void for_outputs(const ConvAxis& axis, int64_t width, int64_t x, Body&& body) {
  const int64_t last = x + axis.padding;
  if (kStride == 1) {
    for (int64_t k = 0; k < axis.kernel; ++k) body(k, last - k);
  } else if (kStride == 2) {
    for (int64_t k = last & 1; k < axis.kernel; k += 2) body(k, (last - k) >> 1);
  } else {
    for (int64_t k = 0; k < axis.kernel; ++k) {
      const int64_t shifted = last - k;
      if (shifted >= 0 && shifted % axis.stride == 0 && shifted / axis.stride < width) body(k, shifted / axis.stride);
    }
  }
}

/// Mark the outputs in one line that look at the inputs [first, end).
template <int kStride>
void mark_line(const ConvAxis& axis, int64_t width, const Lines& inputs, int64_t first, int64_t end, Marks& marks) {
  for (int64_t j = first; j < end; ++j) {
    for_outputs<kStride>(axis, width, inputs.x[j], [&](int64_t, int64_t o) {
      if (kStride == 0 || (o >= 0 && o < width)) marks.set(o);
    });
  }
}

/// Fill in the taps (kz, ky, *) of the outputs in one line, from the inputs [first, end) of the line that they meet there.
template <int kStride>
void fill_line(const ConvAxis& axis, int64_t width, const Lines& inputs, int64_t first, int64_t end, RowAt& row_at, int64_t taps,
               int32_t* table) {
  for (int64_t j = first; j < end; ++j) {
    for_outputs<kStride>(axis, width, inputs.x[j], [&](int64_t k, int64_t o) {
      *row_at.place(o, table, taps, k) = inputs.row[j];
    });
  }
}

/// Coordinates of the outputs of one line.
void write_line(const ConvGrid& grid, int64_t line, const int32_t* x, int64_t count, int64_t columns, int32_t* coords) {
  int32_t start[4];
  grid.write_coords(line * grid.x.out(), columns, start);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < columns - 1; ++c) coords[i * columns + c] = start[c];
    coords[i * columns + columns - 1] = x[i];
  }
}

}  // namespace

void sparse_outputs(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, int64_t capacity, int64_t* cells,
                    int64_t* counters, int num_threads) {
  const ConvGrid grid = CONV_GRID;
  const int threads = threads_for(num, num_threads, kSitesPerThread);
  Lines inputs(num);
  read_inputs(grid, coords, num, columns, threads, inputs, counters);
  const std::vector<int64_t> lines = output_lines(grid, inputs, threads);
  const int64_t width = grid.x.out();
  const auto mark = grid.x.stride == 1 ? mark_line<1> : grid.x.stride == 2 ? mark_line<2> : mark_line<0>;
  std::vector<std::vector<int64_t>> found(static_cast<std::size_t>(threads));
  parallel_ranges(static_cast<int64_t>(lines.size()), threads, [&](int thread, int64_t begin, int64_t end) {
    std::vector<int64_t>& mine = found[static_cast<std::size_t>(thread)];
    mine.reserve(static_cast<std::size_t>(2 * num / threads + 64));
    InputLines input_lines(grid, inputs);
    Marks marks(width);
    for (int64_t l = begin; l < end; ++l) {
      const int64_t line = lines[static_cast<std::size_t>(l)];
      input_lines.meet(line, [&](int64_t, int64_t first, int64_t stop) {
        mark(grid.x, width, inputs, first, stop, marks);
      });
      marks.take([&](int64_t x) { mine.push_back(line * width + x); });
    }
  });
  int64_t total = 0;
  for (const auto& mine : found) {
    const int64_t room = std::min<int64_t>(static_cast<int64_t>(mine.size()), std::max<int64_t>(capacity - total, 0));
    std::copy(mine.begin(), mine.begin() + room, cells + std::min(total, capacity));
    total += static_cast<int64_t>(mine.size());
  }
  counters[kNumOutputs] = std::min(total, capacity);
  counters[kNumOutputsOver] = std::max<int64_t>(total - capacity, 0);
}

void sparse_table(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, const int64_t* cells, int64_t num_outputs,
                  int32_t* out_coords, int32_t* table, int64_t* counters, int num_threads) {
  const ConvGrid grid = CONV_GRID;
  const int threads = threads_for(std::max(num, num_outputs), num_threads, kSitesPerThread);
  const int64_t taps = grid.taps(), width = grid.x.out();
  Lines inputs(num);
  read_inputs(grid, coords, num, columns, threads, inputs, counters);
  const int64_t num_cells = cells ? std::min(counters[kNumOutputs], num_outputs) : 0;
  Lines given(num_cells);
  if (cells) {
    int64_t line = -1, line_end = 0;
    for (int64_t i = 0; i < num_cells; ++i) {
      if (cells[i] >= line_end) line = cells[i] / width, line_end = (line + 1) * width;
      given.append(line, cells[i] - (line_end - width), i);
    }
  } else {
    counters[kNumOutputs] = num_outputs, counters[kNumOutputsOver] = 0;
  }
  const Lines& outputs = cells ? given : inputs;
  const auto fill = grid.x.stride == 1 ? fill_line<1> : grid.x.stride == 2 ? fill_line<2> : fill_line<0>;
  if (cells) {  // rows of the capacity that stay free
    std::fill(table + num_cells * taps, table + num_outputs * taps, -1);
    std::fill(out_coords + num_cells * columns, out_coords + num_outputs * columns, -1);
  } else if (inputs.num_sites < num_outputs) {
    std::fill(table, table + num_outputs * taps, -1);
  }
  parallel_ranges(outputs.num_lines, threads, [&](int, int64_t begin, int64_t end) {
    InputLines input_lines(grid, inputs);
    RowAt row_at(width, grid.x.kernel);
    for (int64_t l = begin; l < end; ++l) {
      const int64_t first = outputs.begin[l], stop = outputs.begin[l + 1];
      for (int64_t i = first; i < stop; ++i) {
        const int64_t row = outputs.row[i];
        row_at[outputs.x[i]] = outputs.row[i];
        std::fill(table + row * taps, table + (row + 1) * taps, -1);  // here, while it stays in the cache until it is filled in
      }
      if (cells) write_line(grid, outputs.line[l], &outputs.x[first], stop - first, columns, out_coords + first * columns);
      input_lines.meet(outputs.line[l], [&](int64_t tap, int64_t first_input, int64_t end_input) {
        fill(grid.x, width, inputs, first_input, end_input, row_at, taps, table + tap * grid.x.kernel);
      });
      for (int64_t i = first; i < stop; ++i) row_at[outputs.x[i]] = -1;
    }
  });
}

}  // namespace ops::cpu
