"""The report: one HTML page that shows what a run did, with its pictures inside.

Data flow: readers of the other stages -> one small dataclass a section (`results`, `funnel`, `negatives`, `mined`,
`made`, `curves`, `rollouts`, `changes`, `lineage`) -> `page`, which fills the template. `charts`, `margins`,
`comparing` and `pictures` draw; `kinds` has the words for a kind of negative. A run of any method may leave any section
without input. Everything that comes from data or models is escaped by the template.
"""
