// How a budget of bytes is divided between layers, each of which offers a lower fullest node for
// more of them.
#ifndef EXPERTMESH_COMMON_BALANCE_BUDGET_DIVISION_H_
#define EXPERTMESH_COMMON_BALANCE_BUDGET_DIVISION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace expertmesh::balance {

// Takes, again and again, the step that lowers the sum of levels most for its bytes. Not
// thread-safe.
class BudgetDivision {
 public:
  explicit BudgetDivision(uint64_t budget) : left_(budget) {}

  // In order of layers and, for each, of loads. `level`: what the layer comes to with so many.
  void AddChoice(size_t layer, uint64_t copy_bytes, uint32_t loads, double level);

  // Bytes of every layer's first choice.
  uint64_t LeastBytes() const;

  // [layers] The choice that each layer gets, as a position among its own. LeastBytes() is within
  // the budget.
  std::vector<size_t> Divide();

  // Bytes that Divide() left.
  uint64_t left() const { return left_; }

 private:
  struct Choice {
    uint32_t loads = 0;
    double level = 0;
  };
  struct Layer {
    uint64_t copy_bytes = 0;
    std::vector<Choice> choices;
    size_t taken = 0;
  };
  // The choice after the one taken that gains most for its bytes, of those that can be paid.
  size_t BestStep(const Layer& layer, double* gain) const;

  uint64_t left_;
  std::vector<Layer> layers_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_BUDGET_DIVISION_H_
