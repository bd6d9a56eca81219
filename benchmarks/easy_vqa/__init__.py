"""A testbed that we did not design: easy-VQA, selected so that a language prior holds while the base learns.

Pictures, questions and answers are the package's (`easy-vqa`, MIT); which rows stand in which part is ours, as VQA-CP
did with VQA (arXiv:1712.00377). Data flow: `rows` (the package, read) -> `prior` (what the language says) ->
`selection` (which rows go where) -> `export` (a Parquet file that `mbpo samples` imports). `base` trains the models.
"""
