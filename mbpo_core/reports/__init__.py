"""The report: one HTML page that shows what a run did, with its pictures inside.

Data flow: readers of the other stages -> one small dataclass a section (`results`, `funnel`, `negatives`, `mined`,
`made`, `curves`, `rollouts`, `changes`, `lineage`) -> `page`, which fills the template. `charts`, `likelihoods` and
`margins` draw with matplotlib, and `svg` makes of it what follows light and dark; `comparing` and `pictures` show
images; `gallery` says what cards can be filtered and sorted by; `kinds` has the words for a kind of negative. A run of
any method may leave any section without input. Everything that comes from data or models is escaped and cut by the
template, and the page's own policy forbids every script and style but its own.
"""
