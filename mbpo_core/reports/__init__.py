"""The report: one HTML page that shows what a run did, with its pictures inside.

Data flow: readers of the other stages -> one small dataclass a section (`results`, `funnel`, `attacks`, `mined`,
`curves`, `rollouts`, `changes`, `lineage`) -> `page`, which fills the template. `charts` and `pictures` draw.
Everything that comes from data or models is escaped by the template.
"""
