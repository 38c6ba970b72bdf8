"""Generated machines: from a `Host` to what each tool of a given release would print about it.

Everything printed here is made up; where a format has room for a remark it says "simulated".
Only the standard library and `multigpu.hardware` are used, so that the lab's hosts can print the
same text.
"""
