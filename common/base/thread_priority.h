// How much of the CPU a thread gets beside others.
#ifndef EXPERTMESH_COMMON_BASE_THREAD_PRIORITY_H_
#define EXPERTMESH_COMMON_BASE_THREAD_PRIORITY_H_

namespace expertmesh {

// From now on this thread runs when the others leave it the CPU, and hardly beside them; never not
// at all, so that what it holds is let go of. For good: there is no way back without privileges.
void LetOtherThreadsGoFirst();

// From now on this thread gets about a tenth of a CPU that others want, and all of one that they do
// not. For good, too.
void LetOtherThreadsHaveMost();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_THREAD_PRIORITY_H_
