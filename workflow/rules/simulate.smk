rule simulate:
    input:
        notebook="notebooks/1_simulate.ipynb",
        package=PACKAGE,
    output:
        chunk="results/{model_id}/datasets/chunk_{chunk}.npz",
        report="results/{model_id}/reports/simulate_{chunk}.json",
        figure=report(
            "results/{model_id}/figures/simulate_{chunk}.png",
            caption="../report/simulate.rst",
            category="1 simulate",
            labels={"model": "{model_id}", "chunk": "{chunk}"},
        ),
        notebook="results/{model_id}/notebooks/1_simulate_{chunk}.ipynb",
    log:
        notebook="results/{model_id}/logs/1_simulate_{chunk}.ipynb",
        text="results/{model_id}/logs/1_simulate_{chunk}.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        settings=settings("simulate", without=["n_chunks"]),
    message:
        "{wildcards.model_id}: simulate chunk {wildcards.chunk}"
    shell:
        notebook(
            "-p chunk {wildcards.chunk} -r chunk_file {output.chunk:q}"
            " -r report_file {output.report:q} -r figure_file {output.figure:q}"
        )


rule example:
    input:
        script="workflow/scripts/example.py",
        package=PACKAGE,
    output:
        trace="results/{model_id}/traces/example.csv",
        meta="results/{model_id}/traces/example.yaml",
    log:
        "results/{model_id}/logs/example.log",
    conda:
        "../../environment.yml"
    params:
        seed=config["seed"],
    message:
        "{wildcards.model_id}: simulate the example measurement"
    shell:
        "python workflow/scripts/example.py {wildcards.model_id:q} {params.seed}"
        " {output.trace:q} {output.meta:q} 2>&1 | tee {log:q}"
