"""Rule verifiers of closed-ended answers: pure, linear in the text's length, one module a question kind.

Built-in verifiers need no time limit: their patterns cannot backtrack far and texts are cut off at
`judgement.TEXT_LIMIT`. Only code from outside the package would have to run in a killable process.
"""
