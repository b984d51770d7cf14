// Text in the columns of a terminal, of which a character may take two.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_COLUMNS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_COLUMNS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace expertmesh::command {

// No terminal takes more: characters beyond ASCII count as two, as some are.
size_t ColumnsOf(absl::string_view text);

// `text` as it is when it fits into `columns`; else as much of its beginning as does, and "~".
std::string FitColumns(absl::string_view text, size_t columns);

// Lines of a table: the first column to the left, the others to the right, two spaces between them.
// The first column is cut where the table would be wider than `columns`, and lines where even that
// is not enough. The first row is the heading.
std::vector<std::string> TableLines(const std::vector<std::vector<std::string>>& rows,
                                    size_t columns);

// The lines of two tables, one beside the other.
std::vector<std::string> Beside(const std::vector<std::string>& left,
                                const std::vector<std::string>& right, size_t columns);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TEXT_COLUMNS_H_
