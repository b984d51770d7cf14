# cmake -DOUTPUT=FILE "-DFILES=a;b" -P embed.cmake: writes a source file that holds the bytes of FILES.
set(arrays "")
set(entries "")
set(index 0)
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(APPEND arrays "constexpr unsigned char kFile${index}[] = {${bytes}0};\n")
  string(APPEND entries
    "      {\"${name}\", {reinterpret_cast<const char*>(kFile${index}), sizeof(kFile${index}) - 1}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUTPUT} "#include \"router_service/console/page_files.h\"

namespace expertmesh::console {
namespace {
${arrays}}  // namespace

std::vector<PageFile> PageFiles() {
  return {
${entries}  };
}

}  // namespace expertmesh::console
")
