// Games that a network plays against itself: rules, trees and what is learned of them; the network
// is asked from outside, for the leaves of all games at once.
//
// The search is that of play/gumbel.py and data/games/tree_search.py, with the same numbers: Gumbel
// AlphaZero at the root (Danihelka et al., ICLR 2022), PUCT below. A game goes on by itself until it
// needs the network, so that every batch has a leaf of every game that is not over. What was judged
// once is remembered, since trees of one game and of its next move share most of their positions.
// A draw of chance is a hash of (seed, game, ply, number), so no game depends on its neighbours.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr double kVisits = 50.0, kScale = 0.15;  // c_visit and c_scale, as in play/gumbel.py
constexpr double kPuct = 1.5, kTiny = 1e-12;
constexpr int kMost = 34;               // legal moves of one position, at most
constexpr size_t kRemembered = 1 << 19;  // positions
constexpr uint64_t kOpening = 1 << 20;   // numbers of draws that are no noise

uint64_t mix(uint64_t x) {  // SplitMix64's finaliser
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

double uniform(uint64_t seed, uint64_t game, uint64_t ply, uint64_t number) {
  constexpr uint64_t step = 0x9E3779B97F4A7C15ull;
  const uint64_t h = mix(mix(mix(seed + step * (game + 1)) + step * (ply + 1)) + step * (number + 1));
  return (double(h >> 11) + 0.5) * 0x1p-53;
}

struct Board {
  uint64_t own, other, touched;
  int turn;
};

// A move is its number, as the encodings of data/games count them. `legal` writes the numbers and
// says how many there are: none once the game is over. `result` is then the mover's.
struct Connect4 {
  static constexpr int rows = 6, columns = 7, planes = 3, moves = 42;
  static constexpr bool shows_last = false;
  static Board start() { return {0, 0, 0, 0}; }

  static bool four(uint64_t pieces) {
    for (int by : {1, 7, 8, 9}) {
      const uint64_t pairs = pieces & pieces >> by;
      if (pairs & pairs >> 2 * by) return true;
    }
    return false;
  }

  static uint64_t landings(const Board& b) {
    const uint64_t full = b.own | b.other;
    return four(b.other) ? 0 : ((full << 8) | 0x7f) & ~full & 0x7f7f7f7f7f7full;
  }

  static int legal(const Board& b, uint8_t* found) {
    const uint64_t can = landings(b);
    int count = 0;
    for (int c = 0; c < columns; c++)
      for (int r = 0; r < rows; r++)
        if (can >> (8 * r + c) & 1) found[count++] = r * columns + c;
    return count;
  }

  static Board play(const Board& b, int move) {
    const uint64_t at = 1ull << (8 * (move / columns) + move % columns);
    return {b.other, b.own | at, at, 1 - b.turn};
  }

  static double result(const Board& b) { return four(b.other) ? -1.0 : 0.0; }

  static void seen(const Board& b, uint64_t* planes) {
    planes[0] = b.own, planes[1] = b.other, planes[2] = landings(b);
  }
};

struct Othello {
  static constexpr int rows = 8, columns = 8, planes = 4, moves = 65, pass = 64;
  static constexpr bool shows_last = true;
  static constexpr uint64_t not_a = 0xFEFEFEFEFEFEFEFEull, not_h = 0x7F7F7F7F7F7F7F7Full, all = ~0ull;
  static Board start() { return {1ull << 28 | 1ull << 35, 1ull << 27 | 1ull << 36, 0, 0}; }

  template <class Line>
  static void directions(Line line) {
    line([](uint64_t x) { return x << 1 & not_a; });
    line([](uint64_t x) { return x << 7 & not_h; });
    line([](uint64_t x) { return x << 8; });
    line([](uint64_t x) { return x << 9 & not_a; });
    line([](uint64_t x) { return x >> 1 & not_h; });
    line([](uint64_t x) { return x >> 7 & not_a; });
    line([](uint64_t x) { return x >> 8; });
    line([](uint64_t x) { return x >> 9 & not_h; });
  }

  static uint64_t placings(uint64_t own, uint64_t other) {
    uint64_t found = 0;
    const uint64_t empty = ~(own | other);
    directions([&](auto step) {
      uint64_t line = step(own) & other;
      for (int i = 0; i < 5; i++) line |= step(line) & other;
      found |= step(line) & empty;
    });
    return found;
  }

  static int legal(const Board& b, uint8_t* found) {
    int count = 0;
    for (uint64_t left = placings(b.own, b.other); left; left &= left - 1)
      found[count++] = __builtin_ctzll(left);
    if (!count && placings(b.other, b.own)) found[count++] = pass;
    return count;
  }

  static Board play(const Board& b, int move) {
    if (move == pass) return {b.other, b.own, 0, 1 - b.turn};
    uint64_t turned = 0;
    const uint64_t at = 1ull << move;
    directions([&](auto step) {
      uint64_t line = 0, next = step(at) & b.other;
      while (next) line |= next, next = step(next) & b.other;
      if (line && step(line) & b.own) turned |= line;
    });
    return {b.other ^ turned, b.own | turned | at, at, 1 - b.turn};
  }

  static double result(const Board& b) {
    const int lead = __builtin_popcountll(b.own) - __builtin_popcountll(b.other);
    return (lead > 0) - (lead < 0);
  }

  static void seen(const Board& b, uint64_t* planes) {
    planes[0] = b.own, planes[1] = b.other, planes[2] = placings(b.own, b.other);
    planes[3] = b.touched;
  }
};

struct Edge {
  double prior, visits, values;
  int child;
  uint8_t move;
};

struct Node {
  Board board;
  int first, count;
  double value;
};

struct Row {
  Board board;
  int count;
  uint8_t moves[kMost];
  float shares[kMost];
  float value;
};

struct Judged {
  uint64_t own, other, touched;
  uint32_t priors;  // where they begin
  double value;
};

// Positions that were judged, in a table with open addressing; a full one takes no more.
class Memory {
 public:
  Memory() : slots_(2 * kRemembered, -1) {}

  const Judged* find(const Board& b, uint64_t touched) const {
    const long at = slots_[place(b, touched)];
    return at < 0 ? nullptr : &judged_[at];
  }

  void keep(const Board& b, uint64_t touched, double value, const Edge* edges, int count) {
    if (judged_.size() >= kRemembered) return;
    const size_t at = place(b, touched);
    if (slots_[at] >= 0) return;
    slots_[at] = int32_t(judged_.size());
    judged_.push_back({b.own, b.other, touched, uint32_t(priors_.size()), value});
    for (int i = 0; i < count; i++) priors_.push_back(edges[i].prior);
  }

  const double* priors(const Judged& of) const { return &priors_[of.priors]; }

 private:
  size_t place(const Board& b, uint64_t touched) const {
    size_t at = mix(mix(b.own) ^ mix(b.other + 1) * 3 ^ mix(touched + 2) * 5) % slots_.size();
    for (;; at = at + 1 == slots_.size() ? 0 : at + 1) {
      if (slots_[at] < 0) return at;
      const Judged& j = judged_[slots_[at]];
      if (j.own == b.own && j.other == b.other && j.touched == touched) return at;
    }
  }

  std::vector<int32_t> slots_;
  std::vector<Judged> judged_;
  std::vector<double> priors_;
};

// How often the move that each simulation tries has been tried before: sequential halving.
std::vector<int> levels(int moves, int simulations) {
  std::vector<int> found;
  const int phases = std::max(1, int(std::ceil(std::log2(std::max(moves, 1)))));
  for (int alive = moves, level = 0; int(found.size()) < simulations;
       alive = std::max(std::min(2, moves), alive / 2)) {
    const int rounds = std::max(1, simulations / (phases * alive));
    for (int r = 0; r < rounds; r++, level++) found.insert(found.end(), alive, level);
  }
  found.resize(simulations);
  return found;
}

struct Players {
  virtual ~Players() = default;
  virtual long step(const float* outputs, float* features) = 0;
  virtual void sizes(long* into) const = 0;
  virtual void take(uint8_t* planes, int16_t* legal, float* shares, int64_t* offsets, float* values,
                    uint8_t* turns, int8_t* results) const = 0;
};

template <class Game>
class Playing : public Players {
 public:
  Playing(long games, long at_once, int simulations, int considered, int opening, uint64_t seed)
      : games_(games), simulations_(simulations), considered_(considered), opening_(opening),
        seed_(seed), tables_(std::min(games, at_once)), rows_(games), results_(games, 0) {}

  // Hand in what was said of the last leaves, and go on until every game needs the network again.
  long step(const float* outputs, float* features) override {
    for (Table* table : waiting_) judge(*table, outputs), outputs += Game::moves + 1;
    long count = 0;
    waiting_.clear();
    for (Table& table : tables_)
      if (advance(table)) {
        planes(table.nodes.back().board, features + count++ * Game::rows * Game::columns * Game::planes);
        waiting_.push_back(&table);
      }
    return count;
  }

  void sizes(long* into) const override {
    into[0] = into[1] = 0;
    for (const auto& game : rows_)
      for (const Row& row : game) into[0]++, into[1] += row.count;
  }

  void take(uint8_t* planes, int16_t* legal, float* shares, int64_t* offsets, float* values,
            uint8_t* turns, int8_t* results) const override {
    int64_t at = 0;
    *offsets++ = 0;
    for (const auto& game : rows_)
      for (const Row& row : game) {
        uint64_t bits[Game::planes];
        Game::seen(row.board, bits);
        for (int p = 0; p < Game::planes; p++, planes += Game::rows)
          std::memcpy(planes, &bits[p], Game::rows);
        for (int i = 0; i < row.count; i++, at++) legal[at] = row.moves[i], shares[at] = row.shares[i];
        *offsets++ = at;
        *values++ = row.value;
        *turns++ = uint8_t(row.board.turn);
      }
    std::copy(results_.begin(), results_.end(), results);
  }

 private:
  struct Table {  // a place where one game after another is played
    long game = -1;
    int ply = 0, done = 0;
    Board board{};
    std::vector<Node> nodes;  // of the tree of this move; the last one may wait for the network
    std::vector<Edge> edges;
    std::vector<std::pair<int, int>> path;  // edge, and the node it leaves
    std::vector<double> noise;
    std::vector<int> plan;
  };

  static uint64_t shown(const Board& b) { return Game::shows_last ? b.touched : 0; }

  static void planes(const Board& b, float* into) {
    uint64_t bits[Game::planes];
    Game::seen(b, bits);
    for (int r = 0; r < Game::rows; r++)
      for (int c = 0; c < Game::columns; c++)
        for (int p = 0; p < Game::planes; p++) *into++ = float(bits[p] >> (8 * r + c) & 1);
  }

  // Whether the table waits for the network; it does not once all games are played.
  bool advance(Table& t) {
    for (;;) {
      if (t.game < 0) {
        if (next_ >= games_) return false;
        t.game = next_++, t.ply = 0;
        t.board = opened(t.game);
      }
      if (t.nodes.empty()) {
        t.path.clear(), t.plan.clear();
        if (!open(t, t.board)) return true;
      }
      if (t.plan.empty()) begin(t);
      while (t.done < simulations_) {
        if (!descend(t)) return true;
        back(t);
      }
      play(t);
    }
  }

  Board opened(long game) const {
    Board b = Game::start();
    uint8_t moves[kMost];
    const int plies = int(uniform(seed_, game, 0, kOpening) * (opening_ + 1));
    for (int ply = 0; ply < plies; ply++) {
      const int count = Game::legal(b, moves);
      b = Game::play(b, moves[int(uniform(seed_, game, ply, kOpening + 1) * count)]);
      if (!Game::legal(b, moves)) return Game::start();
    }
    return b;
  }

  // A new last node; whether its judgement is known already.
  bool open(Table& t, const Board& b) {
    uint8_t moves[kMost];
    const int count = Game::legal(b, moves), first = int(t.edges.size());
    t.nodes.push_back({b, first, count, 0.0});
    if (!count) return t.nodes.back().value = Game::result(b), true;
    const Judged* known = memory_.find(b, shown(b));
    const double* priors = known ? memory_.priors(*known) : nullptr;
    for (int i = 0; i < count; i++) t.edges.push_back({priors ? priors[i] : 0.0, 0.0, 0.0, -1, moves[i]});
    if (known) t.nodes.back().value = known->value;
    return known != nullptr;
  }

  // What the network said of the last node: logits of all moves and a value.
  void judge(Table& t, const float* outputs) {
    Node& node = t.nodes.back();
    Edge* edges = &t.edges[node.first];
    double most = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (int i = 0; i < node.count; i++) most = std::max(most, double(outputs[edges[i].move]));
    for (int i = 0; i < node.count; i++)
      sum += edges[i].prior = std::exp(double(outputs[edges[i].move]) - most);
    for (int i = 0; i < node.count; i++) edges[i].prior /= sum;
    node.value = outputs[Game::moves];
    memory_.keep(node.board, shown(node.board), node.value, edges, node.count);
    if (!t.path.empty()) back(t);
  }

  void begin(Table& t) {
    const int count = t.nodes[0].count;
    t.plan = levels(std::min(considered_, count), simulations_);
    t.noise.resize(count);
    for (int i = 0; i < count; i++)
      t.noise[i] = -std::log(-std::log(uniform(seed_, t.game, t.ply, i)));
    t.done = 0;
  }

  // Down to a leaf, the last of ``path``'s children; whether its judgement is known.
  bool descend(Table& t) {
    t.path.clear();
    for (int at = 0; t.nodes[at].count;) {
      const int edge = t.nodes[at].first + (at ? by_puct(t, at) : best(t, t.plan[t.done]));
      t.path.push_back({edge, at});
      if (t.edges[edge].child < 0) {
        t.edges[edge].child = int(t.nodes.size());
        return open(t, Game::play(t.nodes[at].board, t.edges[edge].move));
      }
      at = t.edges[edge].child;
    }
    return true;
  }

  void back(Table& t) {
    const Node& leaf = t.nodes[t.edges[t.path.back().first].child];
    for (auto [edge, node] : t.path) {
      t.edges[edge].visits += 1;
      t.edges[edge].values += t.nodes[node].board.turn == leaf.board.turn ? leaf.value : -leaf.value;
    }
    t.done++;
  }

  int by_puct(const Table& t, int at) const {
    const Node& node = t.nodes[at];
    const Edge* edges = &t.edges[node.first];
    double visits = 1.0, most = -std::numeric_limits<double>::infinity();
    for (int i = 0; i < node.count; i++) visits += edges[i].visits;
    const double root = std::sqrt(visits);
    int best = 0;
    for (int i = 0; i < node.count; i++) {
      const Edge& e = edges[i];
      const double score = e.values / std::max(e.visits, 1.0) + kPuct * e.prior * root / (1 + e.visits);
      if (score > most) most = score, best = i;
    }
    return best;
  }

  // log p + σ(q̄) of the moves of the root.
  std::vector<double> worth(const Table& t) const {
    const Node& root = t.nodes[0];
    const Edge* edges = &t.edges[root.first];
    double visits = 0.0, most = 0.0, weighed = 0.0, priors = 0.0;
    for (int i = 0; i < root.count; i++) {
      const Edge& e = edges[i];
      visits += e.visits;
      most = std::max(most, e.visits);
      if (e.visits > 0)
        weighed += (e.prior + kTiny) * e.values / e.visits, priors += e.prior + kTiny;
    }
    const double mixed = visits > 0 ? (root.value + visits * weighed / priors) / (1 + visits) : root.value;
    std::vector<double> found(root.count);
    for (int i = 0; i < root.count; i++) {
      const double mean = edges[i].visits > 0 ? edges[i].values / edges[i].visits : mixed;
      found[i] = std::log(edges[i].prior + kTiny) + kScale * (kVisits + most) * (mean + 1) / 2;
    }
    return found;
  }

  int best(const Table& t, double level) const {
    const std::vector<double> worth = this->worth(t);
    const Edge* edges = &t.edges[0];
    double most = -std::numeric_limits<double>::infinity();
    int best = 0;
    for (int i = 0; i < int(worth.size()); i++)
      if (edges[i].visits == level && t.noise[i] + worth[i] > most)
        most = t.noise[i] + worth[i], best = i;
    return best;
  }

  // Note what was found of the position, and make the move.
  void play(Table& t) {
    const Node& root = t.nodes[0];
    Row row{t.board, root.count, {}, {}, 0.0f};
    std::vector<double> weights = worth(t);
    const double most = *std::max_element(weights.begin(), weights.end());
    double sum = 0.0, visits = 0.0;
    for (double& w : weights) sum += w = std::exp(w - most);
    for (int i = 0; i < root.count; i++) {
      row.moves[i] = t.edges[i].move;
      row.shares[i] = float(weights[i] / sum);
      visits = std::max(visits, t.edges[i].visits);
    }
    rows_[t.game].push_back(row);
    t.board = Game::play(t.board, t.edges[best(t, visits)].move);
    t.ply++, t.nodes.clear(), t.edges.clear();
    uint8_t moves[kMost];
    if (Game::legal(t.board, moves)) return;
    const double result = Game::result(t.board);
    for (Row& r : rows_[t.game]) r.value = float(r.board.turn == t.board.turn ? result : -result);
    results_[t.game] = int8_t(t.board.turn ? -result : result);
    t.game = -1;
  }

  const long games_;
  const int simulations_, considered_, opening_;
  const uint64_t seed_;
  long next_ = 0;
  Memory memory_;
  std::vector<Table> tables_;
  std::vector<Table*> waiting_;
  std::vector<std::vector<Row>> rows_;
  std::vector<int8_t> results_;
};

}  // namespace

extern "C" {  // begin: null where there is no memory, or no such game

void* begin(int game, long games, long at_once, int simulations, int considered, int opening,
            uint64_t seed) {
  try {
    if (game == 0) return new Playing<Connect4>(games, at_once, simulations, considered, opening, seed);
    if (game == 1) return new Playing<Othello>(games, at_once, simulations, considered, opening, seed);
  } catch (const std::bad_alloc&) {
  }
  return nullptr;
}

// Leaves to be judged; 0 once all games are over, -1 without memory.
long step(void* players, const float* outputs, float* features) {
  try {
    return static_cast<Players*>(players)->step(outputs, features);
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

void sizes(void* players, long* into) { static_cast<Players*>(players)->sizes(into); }

void take(void* players, uint8_t* planes, int16_t* legal, float* shares, int64_t* offsets,
          float* values, uint8_t* turns, int8_t* results) {
  static_cast<Players*>(players)->take(planes, legal, shares, offsets, values, turns, results);
}

void finish(void* players) { delete static_cast<Players*>(players); }
}
