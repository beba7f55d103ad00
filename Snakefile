# From configuration to verdict, for every model: five stages, one notebook each.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/stress.smk"
include: "workflow/rules/guardrail.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        "results/report.html",


onstart:
    hold_results()


onsuccess:
    logger.info(closing_words(), extra={"event": "closing_words"})
