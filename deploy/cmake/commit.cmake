# Writes OUT, a header that defines EXPERTMESH_COMMIT as the commit of the tree SOURCE, if that changed.
#   cmake -DSOURCE=DIR -DOUT=FILE -P commit.cmake
execute_process(
  COMMAND git -C ${SOURCE} describe --always --abbrev=12 --dirty --exclude=*
  OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT COMMIT)
  set(COMMIT unknown)  # Not a clone: an archive of the sources, for example.
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define EXPERTMESH_COMMIT \"${COMMIT}\"\n")
