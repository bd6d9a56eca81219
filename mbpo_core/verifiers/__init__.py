"""Rule verifiers of closed-ended answers: pure, linear in the text's length, one module a question kind.

Built-in rules need no time limit: their patterns cannot backtrack far and texts are cut off at
`judgement.TEXT_LIMIT`. Mathematics is judged by a library that can hang, and so in a process that is killed.
"""
